"""What the session and its generator processes tell each other, over the children's pipes.

Each message is 4 bytes of length, big endian, and msgpack. Mirror: tests/bench/load/test_orders.py.
"""

import os
from collections.abc import Iterator
from typing import Literal

import msgspec

from .mix import Kind
from .plan import Plan
from .tally import Packed, TallyValues

Protocol = Literal["pronghorn", "req", "dealer"]
"""How calls are sent: as Pronghorn's, or as bare frames with a REQ's envelope or without."""

_LENGTH_BYTES = 4


class Order(msgspec.Struct, frozen=True, tag=True):
    """What a process is to do; it answers with `Ready` or `Failed`."""

    plan: Plan
    kinds: tuple[Kind, ...]
    protocol: Protocol
    endpoint: str
    process: int
    trace: str | None = None  # path of the one that is replayed
    instead: dict[str, tuple[bytes, ...]] | None = None  # what its calls send


class Begin(msgspec.Struct, frozen=True, tag=True):
    """When the plan begins, on the clock of `time.monotonic_ns`. The pipe's end means: stop now."""

    at_ns: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """All connections of the process are there."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """They are not; code and message of the error."""

    code: str
    message: str


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a process is: totals, and the latencies since it last told."""

    sent: int
    answered: int
    errors: int
    latency: Packed


class Done(msgspec.Struct, frozen=True, tag=True):
    """All that a process has to report; its last word.

    `ran_s` are seconds after the warm-up in which it has sent: fewer than planned if `stopped`.
    """

    pid: int
    cpu: float
    memory_bytes: int
    stopped: bool
    ran_s: float
    tally: TallyValues


ToGenerator = Order | Begin
FromGenerator = Ready | Failed | Progress | Done

_of_session = msgspec.msgpack.Decoder(ToGenerator)
_of_generator = msgspec.msgpack.Decoder(FromGenerator)


def send(descriptor: int, message: ToGenerator | FromGenerator) -> None:
    """Write a message whole, waiting for the reader."""
    body = msgspec.msgpack.encode(message)
    rest = memoryview(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def receive(descriptor: int) -> ToGenerator | None:
    """Read one message, waiting for it; `None` at the pipe's end."""
    size = _read(descriptor, _LENGTH_BYTES)
    if size is None:
        return None
    body = _read(descriptor, int.from_bytes(size, "big"))
    return None if body is None else _of_session.decode(body)


def _read(descriptor: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


class Inlet:
    """What comes from one generator, put together from what its pipe gives."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[FromGenerator]:
        """Take in bytes and give the messages that are complete."""
        rest = self._rest
        rest += data
        while len(rest) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "big")
            if len(rest) < end:
                return
            yield _of_generator.decode(bytes(rest[_LENGTH_BYTES:end]))
            del rest[:end]
