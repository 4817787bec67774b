"""Logs that outlive whoever writes them: what nodes did, and what callers were told.

A record is written by one `write` to a file opened for appending, so those of several processes
do not mix, and a page holds a whole number of them, so that a SIGKILL in the middle of a write
leaves none in part. Times are monotonic nanoseconds, the same for all processes of a host.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from time import monotonic_ns
from typing import NamedTuple

_RECORD = struct.Struct("<qqqq")
_PAGE_BYTES = 4096

assert _PAGE_BYTES % _RECORD.size == 0, "no record crosses a page's end"


class Event(IntEnum):
    """What has happened to a call."""

    BEGUN = 1  # its node has begun
    ENDED = 2  # its node is at its end, whatever it ends with
    OPENED = 3  # its caller makes it; value: its timeout in us, 0 for none
    TOLD = 4  # its caller was told how it ended; value: a `Told`


class Outcome(IntEnum):
    """What a caller was told about its call."""

    RESULT = 1
    NOT_STARTED = 2
    MAYBE_EXECUTED = 3
    EXECUTED = 4
    WITHDRAWN = 5  # nothing: it has cancelled the call itself and does not listen any more
    WRONG_RESULT = 6  # a result, but of another call
    NO_OUTCOME = 7  # an error that does not say it


CODES = (
    "",  # there was no error
    "other",
    "BROKER_LOST",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INVALID_ARGUMENT",
    "NODE_ERROR",
    "RESOURCE_EXHAUSTED",
    "WORKER_LOST",
    "own close",  # BROKER_LOST, for its own client was closed
)
"""Codes of errors, known by their place in here."""


class Told(NamedTuple):
    """What a caller was told: the outcome and the code of the error."""

    outcome: Outcome
    code: str = ""

    def as_value(self) -> int:
        code = self.code if self.code in CODES else "other"
        return CODES.index(code) << 8 | self.outcome

    @classmethod
    def of_value(cls, value: int) -> "Told":
        return cls(Outcome(value & 0xFF), CODES[value >> 8])


class Record(NamedTuple):
    """One line of a log."""

    call: int
    event: int
    value: int
    ns: int


class Log:
    """Writes records; from any thread, and in a forked child too."""

    def __init__(self, path: str | Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)

    def write(self, call: int, event: Event, value: int = 0) -> None:
        """Write one record; it is there whatever comes next."""
        os.write(self._fd, _RECORD.pack(call, event, value, monotonic_ns()))

    def close(self) -> None:
        os.close(self._fd)


def read(path: Path) -> Iterator[Record]:
    """Read a log that is not written to any more."""
    data = path.read_bytes()
    assert len(data) % _RECORD.size == 0, f"{path} ends with a part of a record"
    return (Record(*fields) for fields in _RECORD.iter_unpack(data))


def read_all(paths: Iterable[Path]) -> Iterator[Record]:
    """Read several logs, one after the other."""
    for path in paths:
        yield from read(path)
