"""When records are committed, and how many at once. Pure.

What somebody waits for (`hurry`) waits for no timer: its commit begins when the last one has ended,
with all that has queued by then. So under load the batches grow by themselves until the commits
keep up. What nobody waits for is left to gather for `LINGER_S`: a commit for each run of a client
that starts one after the other would take the cores from that very client (calls gather in the
broker already, see recorder.py). A batch is bounded, and so is the queue: when it is full its
owner stops reading, so that what is outstanding piles up at the sender, which counts it
(`backlog`).

A few records that somebody waits for are logged instead (wal.py): that keeps them, and the store
takes them in with its next commit, which is then in no hurry. So what is logged is always what was
there first, and is in each next commit.

Records are kept in the order in which they came, all or none of a batch, so a watermark is enough
to acknowledge them: all up to that number are kept.

Mirror: tests/broker/journal/test_batch.py.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice, repeat
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

LOGGED_S: Final = 0.05
"""How long the store may lack what is logged. Readers beside the journal see it that much later."""

LOGGED_RECORDS: Final = 256
"""So many wait for no more: to commit them holds up who waits next for two milliseconds."""

LOGGED_AT_ONCE: Final = 128  # more are committed at once: that is hardly dearer

Entry = TypeVar("Entry")


class CommitQueue(Generic[Entry]):
    """What is to be committed, in order."""

    __slots__ = (
        "_entries",
        "_hurried",
        "_logged_at",
        "_since",
        "_taken",
        "_taken_bytes",
        "_waited_for",
        "logged",
        "queued_bytes",
    )

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()  # with its size in bytes
        self._taken = 0  # of these, so many from the first on are being committed
        self._taken_bytes = 0
        self.queued_bytes = 0  # of all entries
        self.logged = 0  # of these, so many from the first on are logged
        self._logged_at = 0.0  # when the first of those was, monotonic seconds
        self._since = 0.0  # when the first of the others came, monotonic seconds
        self._hurried = False  # whether these are to wait for no more
        self._waited_for = False  # whether somebody waits for some of them

    def __len__(self) -> int:
        """Return how many entries are not committed, the logged ones included."""
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return self.queued_bytes >= QUEUE_BYTES or len(self._entries) >= 4 * BATCH_RECORDS

    @property
    def due(self) -> float:
        """When the next commit is to begin, monotonic seconds; `inf` when nothing is queued."""
        due = self._logged_due
        fresh = len(self._entries) - self.logged
        if fresh:
            at_once = self._hurried or fresh >= LINGER_RECORDS
            due = min(due, 0.0 if at_once else self._since + LINGER_S)
        return due

    @property
    def _logged_due(self) -> float:
        """When the store is to take in what is logged; `inf` when nothing is."""
        if not self.logged:
            return inf
        return self._logged_at + LOGGED_S if self.logged < LOGGED_RECORDS else 0.0

    def hurry(self, *, waited_for: bool = False) -> None:
        """Let what is queued wait for nothing more; somebody may wait for it."""
        self._hurried = len(self._entries) > self.logged
        self._waited_for = self._hurried and (waited_for or self._waited_for)

    def extend(self, entries: Sequence[Entry], size: int, now: float) -> None:
        """Add entries, each of so many bytes."""
        if len(self._entries) == self.logged:
            self._since = now
        self._entries.extend(zip(entries, repeat(size)))
        self.queued_bytes += size * len(entries)

    def to_log(self, now: float) -> Sequence[Entry]:
        """Return what is to be logged; nothing if nobody waits for it, or it is rather committed.

        So it is when what is logged has its time: however much goes on coming, the store is not
        behind by more than it says.

        Contract: either it is logged and then `add_logged` called, or the next commit begins.
        """
        fresh = len(self._entries) - self.logged
        if not self._waited_for or fresh > LOGGED_AT_ONCE or now >= self._logged_due:
            return ()
        return [entry for entry, _ in islice(self._entries, self.logged, None)]

    def add_logged(self, now: float) -> None:
        """Take note that all there is has been logged."""
        if not self.logged:
            self._logged_at = now
        self.logged = len(self._entries)
        self._hurried = self._waited_for = False

    def take(self) -> Sequence[Entry]:
        """Return what the next commit is of: all there is, within the bounds; at least one, if any.

        Contract: `committed` or `failed` is called before the next `take`.
        """
        assert not self._taken
        # Nearly always it is all there is.
        if len(self._entries) <= BATCH_RECORDS and self.queued_bytes <= BATCH_BYTES:
            self._taken, self._taken_bytes = len(self._entries), self.queued_bytes
            return [entry for entry, _ in self._entries]
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
        if self._taken == len(self._entries):
            self._entries.clear()
        else:
            for _ in range(self._taken):
                self._entries.popleft()
        self.queued_bytes -= self._taken_bytes
        self.logged = max(0, self.logged - self._taken)
        self._taken = self._taken_bytes = 0
        self._hurried = self._hurried and bool(self._entries)
        self._waited_for = self._waited_for and self._hurried

    def failed(self) -> None:
        """Put back what was taken: nothing of it was kept, it is tried again first."""
        self._taken = self._taken_bytes = 0

    def cut(self, count: int) -> None:
        """Forget all but so many, of which the logged ones are: whoever sent that keeps it.

        What stays waits for nothing more.
        """
        assert count >= self.logged
        assert not self._taken
        while len(self._entries) > count:
            self.queued_bytes -= self._entries.pop()[1]
        self.hurry()
