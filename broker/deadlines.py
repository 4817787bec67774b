"""When which request is late: a heap over the broker's monotonic clock. Pure.

Mirror: tests/broker/test_deadlines.py.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

Item = TypeVar("Item")

ROOM_MIN = 1024
"""Items below which it is not worth while to look for those that have ended."""


class Deadlines(Generic[Item]):
    """Items by the time they are due; one that has ended before is left out sooner or later.

    What has ended with a far deadline goes when the heap has doubled, so that it is never more than
    twice as long as what is open, at a cost per item that does not grow.
    """

    __slots__ = ("_ended", "_heap", "_pushed", "_room", "next_due")

    def __init__(self, ended: Callable[[Item], bool]) -> None:
        self._ended = ended  # whether an item is of no interest any more
        self._heap: list[tuple[float, int, Item]] = []
        self.next_due = inf  # when the next item is due; `inf` when there is none
        self._pushed = 0  # breaks ties, so that items are never compared
        self._room = ROOM_MIN  # length at which ended items are taken out

    def push(self, due: float, item: Item) -> None:
        """Add an item that is due at that time."""
        self._pushed += 1
        if len(self._heap) >= self._room:
            self._tidy()
        heappush(self._heap, (due, self._pushed, item))
        self.next_due = self._heap[0][0]

    def pop_due(self, now: float) -> list[Item]:
        """Take out all items due at `now` that have not ended, earliest first."""
        heap, ended = self._heap, self._ended
        due = []
        while heap and (heap[0][0] <= now or ended(heap[0][2])):
            item = heappop(heap)[2]
            if not ended(item):
                due.append(item)
        self.next_due = heap[0][0] if heap else inf
        return due

    def items(self) -> list[Item]:
        """List the items that have not ended; for tests and invariants."""
        return [item for _, _, item in self._heap if not self._ended(item)]

    def _tidy(self) -> None:
        self._heap = [entry for entry in self._heap if not self._ended(entry[2])]
        heapify(self._heap)
        self._room = max(ROOM_MIN, 2 * len(self._heap))

    def __len__(self) -> int:
        return len(self._heap)
