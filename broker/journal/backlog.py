"""What the broker has written and the journal has not yet acknowledged. Pure.

The broker numbers its records, and holds each until it is acknowledged: if the writer dies, the
next one says how far it came and gets the rest again, so nothing is lost or doubled by its death.
A record that the journal refuses is given up, with all later ones of its run, which can't be kept
without it; their numbers stay, so that those of others are what they were.

What is outstanding is bounded in count, bytes and age, in two steps: beyond the first, `batched`
calls wait for their commit as `sync` ones do, so that they slow down to what the disk can do;
beyond the second, new durable calls are refused. What belongs to accepted ones is always taken.

Mirror: tests/broker/journal/test_backlog.py.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum
from itertools import repeat
from typing import Final, Generic, TypeVar

import msgspec

from ..wire.limits import MIB
from .messages import Void, encode_message
from .record import INDEX_MAX, sequence_of


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much may be outstanding.

    Attributes:
        records: Number of records.
        bytes: Their bytes, values included.
        age_s: Seconds since the oldest was written.
    """

    records: int
    bytes: int
    age_s: float


WAIT: Final = Bounds(records=10_000, bytes=16 * MIB, age_s=0.1)
"""Thirty usual commits: who is answered at once risks no more than that."""

REFUSE: Final = Bounds(records=100_000, bytes=128 * MIB, age_s=5.0)
"""What the broker can hold; a disk that takes longer for a commit serves nobody."""

_LAST_INDEX: Final = INDEX_MAX - 100 * REFUSE.records
"""Beyond it nothing new is accepted until the next start, so that what is open can end."""

assert WAIT.records < REFUSE.records
assert WAIT.bytes < REFUSE.bytes
assert WAIT.age_s < REFUSE.age_s


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """What each record begins with."""

    kind: int
    run: int = 0  # of a `Void`


_decode_head: Final = msgspec.msgpack.Decoder(_Head).decode
_VOID: Final = (encode_message(Void()),)


class Standing(Enum):
    """What a new durable call meets."""

    OPEN = "open"  # `batched` is answered at once
    WAIT = "wait"  # `batched` is answered after its commit, too
    REFUSE = "refuse"  # neither is accepted


Waiter = TypeVar("Waiter")


_Entry = tuple[Sequence[bytes], int, float]
"""Frames of a record, their bytes, and when it was written, monotonic seconds."""


class Backlog(Generic[Waiter]):
    """The records of one epoch that are not acknowledged, and who waits for their being kept."""

    __slots__ = ("_entries", "_last", "_waiters", "next_sequence", "outstanding_bytes")

    def __init__(self, generation: int) -> None:
        self.next_sequence = sequence_of(generation, 1)  # the number of the next record
        self._last = sequence_of(generation, _LAST_INDEX)
        self._entries: deque[_Entry] = deque()  # oldest first, without gaps
        # number of a record -> who waits for it; only of those in `_entries`
        self._waiters: dict[int, list[Waiter]] = {}
        self.outstanding_bytes = 0

    def __len__(self) -> int:
        """Return how many records are outstanding."""
        return len(self._entries)

    @property
    def acknowledged(self) -> int:
        """The number up to which all records are kept."""
        return self.next_sequence - 1 - len(self._entries)

    def append(self, frames: Sequence[bytes], now: float) -> int:
        """Give a record that is being written its number, and hold its frames."""
        sequence = self.next_sequence
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        self._entries.append((frames, size, now))
        self.next_sequence = sequence + 1
        self.outstanding_bytes += size
        return sequence

    def extend(self, records: Sequence[Sequence[bytes]], now: float) -> None:
        """Do what `append` does, for many, in a fifth of the time."""
        sizes = [sum(map(len, frames)) for frames in records]
        self._entries.extend(zip(records, sizes, repeat(now)))
        self.next_sequence += len(records)
        self.outstanding_bytes += sum(sizes)

    def wait(self, sequence: int, waiter: Waiter) -> bool:
        """Have a waiter given out when that record is kept; `False`: it is already."""
        assert sequence < self.next_sequence
        if sequence <= self.acknowledged:
            return False
        self._waiters.setdefault(sequence, []).append(waiter)
        return True

    def acknowledge(self, through: int) -> list[Waiter]:
        """Take note that all records up to that number are kept; returns who waited for them."""
        assert through < self.next_sequence
        entries, waiters = self._entries, self._waiters
        first, pop = self.next_sequence - len(entries), entries.popleft
        if first == through:  # as when one call is made at a time
            self.outstanding_bytes -= pop()[1]
            return waiters.pop(through, [])
        self.outstanding_bytes -= sum([pop()[1] for _ in range(first, through + 1)])
        released: list[Waiter] = []
        if waiters:
            for sequence in range(first, through + 1):
                if sequence in waiters:
                    released += waiters.pop(sequence)
        return released

    def give_up(self, sequence: int, of_run: int | None = None) -> tuple[int, list[Waiter]]:
        """Have nothing kept of a record that is outstanding, nor of all later ones of its run.

        Args:
            sequence: Its number.
            of_run: The run that it should be of; if it is not, nothing happens.

        Returns:
            The run, 0 if the record is of none or another one; and who waited for any of these.
        """
        position = sequence - self.acknowledged - 1
        assert 0 <= position < len(self._entries)
        run = _decode_head(self._entries[position][0][0]).run
        gone: list[Waiter] = []
        if of_run not in (None, run):
            return 0, gone
        if run:
            entries, self._entries = self._entries, deque()
            for number, (frames, size, at) in enumerate(entries, sequence - position):
                if number >= sequence and _decode_head(frames[0]).run == run:
                    frames = _VOID
                    gone += self._waiters.pop(number, ())
                self._entries.append((frames, size, at))
        return run, gone

    def waiters(self) -> list[Waiter]:
        """Return who waits, in the order of their records; all stay."""
        return [one for _, waiters in sorted(self._waiters.items()) for one in waiters]

    def standing(self, now: float, more: int = 0) -> Standing:
        """Say what a new durable call meets; so many `more` records are about to be written."""
        if self.next_sequence + more > self._last:
            return Standing.REFUSE
        if not self._entries or not self._exceeds(WAIT, now, more):  # nor what is more
            return Standing.OPEN
        return Standing.REFUSE if self._exceeds(REFUSE, now, more) else Standing.WAIT

    def unacknowledged(self) -> list[Sequence[bytes]]:
        """Return the frames of what a new writer has to be given again, after `acknowledge`."""
        return [frames for frames, _, _ in self._entries]

    def _exceeds(self, bounds: Bounds, now: float, more: int) -> bool:
        return (
            len(self._entries) + more >= bounds.records
            or self.outstanding_bytes >= bounds.bytes
            or now - self._entries[0][2] >= bounds.age_s
        )
