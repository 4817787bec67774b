"""When records are committed, and how many at once. Pure.

There is no timer: the next commit begins when the last one has ended, with all that has queued by
then. So a record that comes alone waits for nobody, and under load the batches grow by themselves
until the commits keep up. A batch is bounded, and so is the queue: when it is full its owner stops
reading, so that what is outstanding piles up at the sender, which counts it (`backlog`).

Records are committed in the order in which they came, all or none of a batch, so a watermark is
enough to acknowledge them: all up to that number are kept.

Mirror: tests/broker/journal/test_batch.py.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from ..wire.limits import MIB

BATCH_RECORDS: Final = 4096
"""About 4 ms of a commit: beyond it a larger batch is hardly cheaper per record."""

BATCH_BYTES: Final = 8 * MIB
QUEUE_BYTES: Final = 32 * MIB
"""What is read ahead of the commits; one record may be larger than a batch, and goes alone."""

assert BATCH_BYTES < QUEUE_BYTES

Entry = TypeVar("Entry")


class CommitQueue(Generic[Entry]):
    """What is to be committed, in order."""

    __slots__ = ("_entries", "_taken", "_taken_bytes", "queued_bytes")

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()  # with its size in bytes
        self._taken = 0  # of these, so many from the first on are being committed
        self._taken_bytes = 0
        self.queued_bytes = 0  # of all entries

    def __len__(self) -> int:
        """Return how many entries are not committed."""
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return self.queued_bytes >= QUEUE_BYTES or len(self._entries) >= 4 * BATCH_RECORDS

    def put(self, entry: Entry, size: int) -> None:
        """Add an entry of so many bytes."""
        self._entries.append((entry, size))
        self.queued_bytes += size

    def take(self) -> Sequence[Entry]:
        """Return what the next commit is of: all there is, within the bounds; at least one, if any.

        Contract: `committed` or `failed` is called before the next `take`.
        """
        assert not self._taken
        batch: list[Entry] = []
        size = 0
        for entry, entry_size in self._entries:
            if batch and (len(batch) == BATCH_RECORDS or size + entry_size > BATCH_BYTES):
                break
            batch.append(entry)
            size += entry_size
        self._taken, self._taken_bytes = len(batch), size
        return batch

    def committed(self) -> None:
        """Forget what was taken: it is kept."""
        for _ in range(self._taken):
            self._entries.popleft()
        self.queued_bytes -= self._taken_bytes
        self._taken = self._taken_bytes = 0

    def failed(self) -> None:
        """Put back what was taken: nothing of it was kept, it is tried again first."""
        self._taken = self._taken_bytes = 0

    def clear(self) -> None:
        """Forget everything: whoever sent it keeps it, or is gone."""
        self._entries.clear()
        self.queued_bytes = self._taken = self._taken_bytes = 0
