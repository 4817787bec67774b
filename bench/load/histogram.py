"""Durations counted exactly as HdrHistogram counts them, to three significant digits.

Each power of two is cut into 1,024 buckets, so that a value read from one is at most 1/1024 off.
The index of a bucket is HdrHistogram's, and `encode` writes its V2 format (compressed, base64),
which its tools and its log format ``.hlog`` read.

A `Recorder` counts while a run is on: it has all its buckets from the beginning, so that it takes
as much memory after an hour as before the first call. A `Histogram` is what was counted, with only
the buckets that hold something. They are merged by adding counts: exact, whoever has counted. Pure.

Mirror: tests/bench/load/test_histogram.py.
"""

import base64
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress
from math import ceil
from typing import Final, Self

DIGITS: Final = 3
_BITS: Final = 10  # of the buckets of one power of two
VALUE_MAX_NS: Final = 2**42
"""A longer duration, above 73 minutes, is counted as this."""

_BUCKETS: Final = ((VALUE_MAX_NS.bit_length() - _BITS) << _BITS) + 1
_COUNT_BYTES: Final = 4  # a process has to make 49,000 calls a second for a day to overflow them

_COOKIE, _COMPRESSED_COOKIE = 0x1C849313, 0x1C849314
_HEADER = struct.Struct(">iiiiqqd")  # cookie, bytes, offset, digits, lowest, highest, ratio
_ENVELOPE = struct.Struct(">ii")
_ENCODED_BYTES_MAX = 1 << 20  # of what is decompressed: every bucket there is takes less


class Recorder:
    """Counts durations in ns as they come."""

    __slots__ = ("_buckets", "_max_ns", "_sum_ns")

    def __init__(self) -> None:
        self._buckets = array("I", bytes(_BUCKETS * _COUNT_BYTES))
        self._sum_ns = 0
        self._max_ns = 0

    def record(self, value_ns: int) -> None:
        """Count one duration; below 0 is 0."""
        value_ns = min(max(value_ns, 0), VALUE_MAX_NS)
        shift = value_ns.bit_length() - _BITS - 1
        self._buckets[value_ns if shift <= 0 else (shift << _BITS) + (value_ns >> shift)] += 1
        self._sum_ns += value_ns
        if value_ns > self._max_ns:
            self._max_ns = value_ns

    def add(self, other: "Histogram") -> None:
        """Count all that another has counted."""
        for index, count in other.counts.items():
            self._buckets[index] += count

    def remove(self, other: "Histogram") -> None:
        """Count it no more, which was added."""
        for index, count in other.counts.items():
            self._buckets[index] -= count

    def percentile(self, percent: float) -> int:
        """Return a percentile in ns, as `Histogram.percentiles`, without making a histogram."""
        count = sum(self._buckets)
        beyond = count - ceil(round(count * percent / 100, 6))
        for index in reversed(range(len(self._buckets))):
            beyond -= self._buckets[index]
            if beyond < 0:
                return largest_of(index)
        return 0

    def histogram(self) -> "Histogram":
        """Return what was counted so far."""
        found = Histogram()
        content = self._buckets.tobytes()
        first = (len(content) - len(content.lstrip(b"\0"))) // _COUNT_BYTES  # bucket in use
        end = len(content.rstrip(b"\0")) // _COUNT_BYTES + 1
        counts = self._buckets[first:end]
        found.counts = dict(
            zip(compress(range(first, end), counts), filter(None, counts), strict=True)
        )
        found.count = sum(found.counts.values())
        found.sum_ns, found.max_ns = self._sum_ns, self._max_ns
        return found

    def take(self) -> "Histogram":
        """Return what was counted, and begin anew."""
        found = self.histogram()
        for index in found.counts:
            self._buckets[index] = 0
        self._sum_ns = self._max_ns = 0
        return found


class Histogram:
    """Counts of durations in ns."""

    __slots__ = ("count", "counts", "max_ns", "sum_ns")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}  # index of a bucket -> how many; none is 0
        self.count = 0  # all of them
        self.sum_ns = 0
        self.max_ns = 0  # exact

    def add(self, other: "Histogram") -> None:
        """Count all that another has counted."""
        counts = self.counts
        for index, count in other.counts.items():
            counts[index] = counts.get(index, 0) + count
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Return percentiles in ns: the largest value that the bucket of each may stand for.

        Args:
            percents: Above 0 to 100, ascending. That of p is the least value which p % of all
                don't exceed. Where nothing was counted it is 0.
        """
        found: list[int] = []
        reached = 0
        ordered = iter(sorted(self.counts.items()))
        largest = 0
        for percent in percents:
            rank = ceil(round(self.count * percent / 100, 6))
            while reached < rank:
                index, count = next(ordered)
                reached += count
                largest = min(largest_of(index), self.max_ns)
            found.append(largest)
        return found

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Give the largest value in ns and the count of each bucket that holds something."""
        for index, count in sorted(self.counts.items()):
            yield largest_of(index), count

    def encode(self) -> str:
        """Encode as HdrHistogram V2, compressed and base64; sum and exact maximum are not in it."""
        body = bytearray()
        expected = 0
        for index, count in sorted(self.counts.items()):
            if index > expected:
                _append_number(body, expected - index)  # so many empty buckets
            _append_number(body, count)
            expected = index + 1
        header = _HEADER.pack(_COOKIE, len(body), 0, DIGITS, 1, VALUE_MAX_NS, 1.0)
        packed = zlib.compress(header + body)
        return base64.b64encode(_ENVELOPE.pack(_COMPRESSED_COOKIE, len(packed)) + packed).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Decode what `encode` has written; sum and maximum are those of the buckets.

        Raises:
            ValueError: It is something else.
        """
        try:
            packed = base64.b64decode(text, validate=True)
            cookie, size = _ENVELOPE.unpack_from(packed)
            if cookie != _COMPRESSED_COOKIE or size != len(packed) - _ENVELOPE.size:
                raise ValueError("it has another cookie")
            content = zlib.decompressobj().decompress(packed[_ENVELOPE.size :], _ENCODED_BYTES_MAX)
            cookie, _, offset, digits, lowest, _, _ = _HEADER.unpack_from(content)
            if (cookie, offset, digits, lowest) != (_COOKIE, 0, DIGITS, 1):
                raise ValueError("it has other settings")
            return cls._of_numbers(_numbers(content[_HEADER.size :]))
        except (ValueError, struct.error, zlib.error, IndexError) as error:
            raise ValueError(f"no HdrHistogram: {error}") from error

    @classmethod
    def _of_numbers(cls, numbers: Iterator[int]) -> Self:
        made = cls()
        index = 0
        for number in numbers:
            if number < 0:
                index -= number
                continue
            if number:
                made.counts[index] = number
                made.count += number
                made.sum_ns += number * largest_of(index)
                made.max_ns = largest_of(index)
            index += 1
        return made


def largest_of(index: int) -> int:
    """Return the largest value in ns that is counted in a bucket."""
    shift = max(0, (index >> _BITS) - 1)
    return ((index - (shift << _BITS) + 1) << shift) - 1


def _append_number(body: bytearray, number: int) -> None:
    """Append a number as ZigZag LEB128."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    while rest >= 0x80:
        body.append(rest & 0x7F | 0x80)
        rest >>= 7
    body.append(rest)


def _numbers(body: bytes) -> Iterator[int]:
    position = 0
    while position < len(body):
        rest = shift = 0
        while True:
            byte = body[position]
            position += 1
            rest |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield rest >> 1 if not rest & 1 else -((rest + 1) >> 1)
