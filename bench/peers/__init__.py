"""Other systems that run a function somewhere else, each in an environment of its own.

A module is one peer and has a `peer` that starts it and gives a `Peer`. It runs in the peer's
environment, in which there is nothing of Pronghorn but the benchmarks themselves.
"""
