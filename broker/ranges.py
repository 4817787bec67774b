"""Which items of a recorded map are given to workers next, and which have to be given again. Pure.

Chunks are cut from the front of what is to do. What a chunk has not come to is put back, and an
item whose worker has died is cut alone from then on, so that it takes no others with it.

Mirror: tests/broker/test_ranges.py.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from .journal.fold import Range
from .wire.chunks import CHUNK_BYTES_MAX, IN_FLIGHT_MAX, next_size
from .wire.limits import MIB

IN_FLIGHT_BYTES_MAX: Final = 8 * MIB
"""Params of chunks in flight; one chunk may go beyond."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Raw]).decode


class Cut(msgspec.Struct, frozen=True):
    """Items that are given to a worker together.

    Attributes:
        first: Index of the first.
        count: How many.
        params: Array of their params.
        deaths: Workers that have died running them; if any has, it is one item.
    """

    first: int
    count: int
    params: Raw
    deaths: int


class Ranges:
    """What is left to do of a map; each `cut` is in flight until it is told what became of it.

    Args:
        items: Array of the params of all items.
        missing: Ranges of those that have not ended.
    """

    def __init__(self, items: Raw, missing: Iterable[Range]) -> None:
        self._items: Sequence[Raw] = _decode(items)
        # first, count, deaths: in this order
        self._todo = deque((first, count, 0) for first, count in missing)
        self._size = 1  # items of the next chunk
        self._in_flight = 0  # chunks
        self._bytes_in_flight = 0
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is in flight and nothing is left to do."""
        return not (self._in_flight or self._todo)

    def cut(self) -> Cut | None:
        """Give what may be given to a worker now; `None` if nothing may."""
        if not self._todo or self._in_flight == IN_FLIGHT_MAX:
            return None
        if self._in_flight and self._bytes_in_flight >= IN_FLIGHT_BYTES_MAX:
            return None
        first, count, deaths = self._todo.popleft()
        taken = self._fitting(first, 1 if deaths else min(count, self._size))
        if taken < count:
            self._todo.appendleft((first + taken, count - taken, deaths))
        params = Raw(_encode(self._items[first : first + taken]))
        self._in_flight += 1
        self._bytes_in_flight += len(params)
        return Cut(first, taken, params, deaths)

    def ended(self, cut: Cut, count: int, run_ms: float = 0.0, result_bytes: int = 0) -> None:
        """Take in that the first items of a cut have ended; the others were not begun."""
        self._land(cut)
        if count < cut.count:
            self._put_back(cut.first + count, cut.count - count)
        elif count and run_ms:
            self._size = next_size(self._size, count, run_ms, result_bytes)

    def lost(self, cut: Cut, before: int, count: int) -> None:
        """Take in that a worker has died running some items of a cut.

        Args:
            cut: It.
            before: Items that have ended before those.
            count: Items that it may have begun and not ended; what is behind them it has not.
        """
        self._land(cut)
        doubtful, behind = cut.first + before, cut.first + before + count
        if behind < cut.first + cut.count:
            self._put_back(behind, cut.first + cut.count - behind)
        if not self._is_stopped:
            self._todo.append((doubtful, count, cut.deaths + 1))

    def stop(self) -> None:
        """Give nothing more, whatever comes back."""
        self._is_stopped = True
        self._todo.clear()

    def _fitting(self, first: int, count: int) -> int:
        """Return how many items from one on, of so many, are no more bytes than a chunk has."""
        size = 0
        for taken, item in enumerate(self._items[first : first + count]):
            size += len(item)
            if taken and size > CHUNK_BYTES_MAX:
                return taken
        return count

    def _put_back(self, first: int, count: int) -> None:
        if not self._is_stopped:
            self._todo.appendleft((first, count, 0))

    def _land(self, cut: Cut) -> None:
        self._in_flight -= 1
        self._bytes_in_flight -= len(cut.params)
