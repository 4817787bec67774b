"""Benchmarks: floors, ratios and the guard that holds them."""

if __name__ != "pronghorn.bench":  # a second copy under another name would have its own classes
    raise ImportError("import pronghorn.bench: this folder is mapped into that namespace")
