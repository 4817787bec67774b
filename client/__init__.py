"""Clients: sync, async, embedded pool, in-process pool, executor and command line."""

if __name__ != "pronghorn.client":  # a second copy under another name would have its own classes
    raise ImportError(
        "import pronghorn.client, not client: this folder is mapped into the pronghorn namespace"
    )
