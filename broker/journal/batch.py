"""When records are committed, and how many at once. Pure.

What somebody waits for (`hurry`) waits for no timer: its commit begins when the last one has ended,
with all that has queued by then. So under load the batches grow by themselves until the commits
keep up. What nobody waits for is left to gather for `LINGER_S`: a commit for each run of a client
that starts one after the other would take the cores from that very client (calls gather in the
broker already, see recorder.py). A batch is bounded, and so is the queue: when it is full its
owner stops reading, so that what is outstanding piles up at the sender, which counts it
(`backlog`).

Records are committed in the order in which they came, all or none of a batch, so a watermark is
enough to acknowledge them: all up to that number are kept.

Mirror: tests/broker/journal/test_batch.py.
"""

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final, Generic, TypeVar

from ..wire.limits import MIB

BATCH_RECORDS: Final = 4096
"""About 4 ms of a commit: beyond it a larger batch is hardly cheaper per record."""

BATCH_BYTES: Final = 8 * MIB
QUEUE_BYTES: Final = 32 * MIB
"""What is read ahead of the commits; one record may be larger than a batch, and goes alone."""

assert BATCH_BYTES < QUEUE_BYTES

LINGER_S: Final = 0.002
"""How long records gather that nobody waits for: as long as a commit of a few thousand takes."""

LINGER_RECORDS: Final = 1000  # so many do not wait for more

Entry = TypeVar("Entry")


class CommitQueue(Generic[Entry]):
    """What is to be committed, in order."""

    __slots__ = ("_entries", "_hurried", "_since", "_taken", "_taken_bytes", "queued_bytes")

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()  # with its size in bytes
        self._taken = 0  # of these, so many from the first on are being committed
        self._taken_bytes = 0
        self.queued_bytes = 0  # of all entries
        self._since = 0.0  # when the first of them came, monotonic seconds
        self._hurried = False  # whether somebody waits for some of them

    def __len__(self) -> int:
        """Return how many entries are not committed."""
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return self.queued_bytes >= QUEUE_BYTES or len(self._entries) >= 4 * BATCH_RECORDS

    @property
    def due(self) -> float:
        """When the next commit is to begin, monotonic seconds; `inf` when nothing is queued."""
        if not self._entries:
            return inf
        at_once = self._hurried or len(self._entries) >= LINGER_RECORDS
        return 0.0 if at_once else self._since + LINGER_S

    def hurry(self) -> None:
        """Let what is queued wait for nothing more."""
        self._hurried = bool(self._entries)

    def put(self, entry: Entry, size: int, now: float) -> None:
        """Add an entry of so many bytes."""
        if not self._entries:
            self._since = now
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
        self._hurried = self._hurried and bool(self._entries)

    def failed(self) -> None:
        """Put back what was taken: nothing of it was kept, it is tried again first."""
        self._taken = self._taken_bytes = 0

    def clear(self) -> None:
        """Forget everything: whoever sent it keeps it, or is gone."""
        self._entries.clear()
        self._hurried = False
        self.queued_bytes = self._taken = self._taken_bytes = 0
