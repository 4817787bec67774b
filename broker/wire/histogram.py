"""Durations counted in buckets whose width grows with the value: log-linear, as HdrHistogram's.

Each power of two is cut into `_PER_OCTAVE` buckets of equal width, so that a bucket is at most an
eighth of its lower bound wide and a percentile read from it, its middle, at most 1/16 off. Values
below 8 ns have a bucket each. A record is one index computed and one count raised, whatever the
value; nothing is sampled, and no value that 64 bits can hold is out of range.

Two histograms are merged by adding their counts and subtracted to see what lies between two points
in time. Pure. Mirror: tests/broker/wire/test_histogram.py.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Self

_PER_OCTAVE_BITS: Final = 3
_PER_OCTAVE: Final = 1 << _PER_OCTAVE_BITS
_VALUE_BITS: Final = 64  # of the largest value; what travels as msgpack has no more

# By the bit length of a value: how far to shift it to the right, and what to add for its index.
_SHIFTS: Final = tuple(max(0, bits - _PER_OCTAVE_BITS - 1) for bits in range(_VALUE_BITS + 1))
_BASES: Final = tuple(shift << _PER_OCTAVE_BITS for shift in _SHIFTS)

BUCKETS: Final = _BASES[-1] + 2 * _PER_OCTAVE
RELATIVE_ERROR: Final = 1 / (2 * _PER_OCTAVE)
"""Most that a percentile is off, in parts of the true value."""


class Histogram:
    """Counts of durations in ns, and their sum."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS  # by index of the bucket
        self.sum_ns = 0

    def record(self, value_ns: int, times: int = 1) -> None:
        """Count a duration, 0 to 2**64 - 1 ns. Guarded by ``scripts/bench guard``."""
        bits = value_ns.bit_length()
        self.counts[_BASES[bits] + (value_ns >> _SHIFTS[bits])] += times
        self.sum_ns += value_ns * times

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def copy(self) -> Self:
        """Return one that does not change when this does; some us."""
        other = type(self)()
        other.counts = self.counts.copy()
        other.sum_ns = self.sum_ns
        return other

    def add(self, other: "Histogram") -> None:
        """Count all that another has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum_ns += other.sum_ns

    def since(self, earlier: "Histogram") -> "Histogram":
        """Return what was counted since an earlier copy of this was made."""
        between = Histogram()
        pairs = zip(self.counts, earlier.counts, strict=True)
        between.counts = [max(0, now - before) for now, before in pairs]
        between.sum_ns = self.sum_ns - earlier.sum_ns
        return between

    def percentiles(self, *percents: float) -> list[int]:
        """Return percentiles in ns, at most `RELATIVE_ERROR` off; 0 where nothing was counted.

        Args:
            percents: Above 0 to 100. That of p is the least value which p % of all don't exceed.
        """
        reached = list(accumulate(self.counts))
        total = reached[-1]
        if not total:
            return [0] * len(percents)
        return [_percentile(reached, total, percent) for percent in percents]

    def buckets(self) -> list[tuple[int, int]]:
        """List the buckets that are not empty: largest value in ns, count; in order."""
        return [(_largest(index), count) for index, count in enumerate(self.counts) if count]


def _percentile(reached: Sequence[int], total: int, percent: float) -> int:
    # Rounded up, but not for what multiplying floats has added.
    rank = max(1, -int(-round(total * percent / 100, 9) // 1))
    index = next(index for index, count in enumerate(reached) if count >= rank)
    return (_largest(index - 1) + 1 + _largest(index)) // 2


def _largest(index: int) -> int:
    """Return the largest value that is counted in a bucket; -1 for the one before the first."""
    if index < 2 * _PER_OCTAVE:
        return index
    shift = (index >> _PER_OCTAVE_BITS) - 1
    return ((index - (shift << _PER_OCTAVE_BITS) + 1) << shift) - 1
