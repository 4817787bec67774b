"""The server side: wire protocol, router core, IO shell and supervisor."""

if __name__ != "pronghorn.broker":  # a second copy under another name would have its own classes
    raise ImportError("import pronghorn.broker: this folder is mapped into that namespace")
