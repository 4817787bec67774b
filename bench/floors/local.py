"""Floors without a second process: a bare function call, and bare msgspec encoding and decoding.

They answer what one call costs when nothing is crossed. They leave out every wake-up and copy,
so they are read as a part of a round trip, never as a rival of it.

Mirror: tests/bench/floors/test_local.py.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from ..figures import Measurement
from ..timing import Measure, time_tight
from .functions import add

_BURST = 100


@contextlib.contextmanager
def function_call() -> Iterator[Measure]:
    """Call a Python function with two keyword arguments."""

    def measure(calls: int) -> Measurement:
        return time_tight(lambda: add(a=1, b=2), 3, calls, burst=_BURST)

    yield measure


@contextlib.contextmanager
def codec() -> Iterator[Measure]:
    """Encode and decode one request and one reply of the wire's shape with msgspec."""
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder().decode

    def once() -> object:
        decode(encode((35, 1, "add", {"a": 1, "b": 2})))
        return decode(encode((49, 1, 3)))[2]

    def measure(calls: int) -> Measurement:
        return time_tight(once, 3, calls, burst=_BURST)

    yield measure
