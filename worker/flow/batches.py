"""The items of one task that run in the workers: which wait, and what the next message holds. Pure.

Mirror: tests/worker/flow/test_batches.py.
"""

from collections import deque

from ..dispatch import Entry
from .events import ItemToRun
from .placing import CALLS_MAX, CHUNKS_MAX, Placing

_BUSY = 4  # messages in flight beside which further ones wait until they are full


class Batches:
    """Items of one execution.

    Attributes:
        stopped: Whether no further ones are sent.

    Args:
        batch_size: Items that one message holds; None leaves it to what is known of the node.
    """

    def __init__(self, batch_size: int | None) -> None:
        self.stopped = False
        self._batch_size = batch_size
        self._waiting: deque[tuple[Entry, ItemToRun]] = deque()
        self._in_flight = 0  # messages
        self._items_in_flight = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._waiting and not self._in_flight

    def add(self, entry: Entry, item: ItemToRun) -> None:
        """Take in an item that may run."""
        self._waiting.append((entry, item))

    def take(self, placing: Placing) -> tuple[Entry, list[ItemToRun]] | None:
        """Give what the next message holds, None if it has to wait; it counts as in flight then."""
        if not self._waiting:
            return None
        entry = self._waiting[0][0]
        if self._in_flight >= (CHUNKS_MAX if entry.is_plain else CALLS_MAX):
            return None
        size = 1
        if entry.is_plain:
            size = placing.of(entry.name).chunk_size(
                len(self._waiting) + self._items_in_flight, self._batch_size
            )
            if len(self._waiting) < size and self._in_flight >= _BUSY:
                return None
        items: list[ItemToRun] = []
        while self._waiting and len(items) < size and self._waiting[0][0] is entry:
            items.append(self._waiting.popleft()[1])
        self._in_flight += 1
        self._items_in_flight += len(items)
        return entry, items

    def ended(self, count: int) -> None:
        """Note that a message with so many items was answered."""
        self._in_flight -= 1
        self._items_in_flight -= count

    def stop(self) -> list[ItemToRun]:
        """Send nothing more; gives what waits."""
        self.stopped = True
        left = [item for _, item in self._waiting]
        self._waiting.clear()
        return left
