"""When which request is late: a heap over the broker's monotonic clock. Pure.

Mirror: tests/broker/test_deadlines.py.
"""

from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Items by the time they are due; what has ended before stays until its time and is skipped.

    Nothing is taken out early: the caller skips what has ended. An item with a far deadline costs
    its entry until then, which the limit on open requests bounds.
    """

    __slots__ = ("_heap", "_pushed", "next_due")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self.next_due = inf  # when the next item is due; `inf` when there is none
        self._pushed = 0  # breaks ties, so that items are never compared

    def push(self, due: float, item: Item) -> None:
        """Add an item that is due at that time."""
        self._pushed += 1
        heappush(self._heap, (due, self._pushed, item))
        self.next_due = self._heap[0][0]

    def pop_due(self, now: float) -> list[Item]:
        """Take out all items due at `now`, earliest first."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        self.next_due = self._heap[0][0] if self._heap else inf
        return due

    def __len__(self) -> int:
        return len(self._heap)
