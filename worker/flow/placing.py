"""Where tasks and items run: in the process that conducts, or in the workers. Pure.

A run host must neither be held up nor be killed by what it runs, so that only those nodes run in it
that have proven tiny in the workers, or are pinned to it. One that turns out to be slow goes back
to them. A trip there costs a task much and one of many items next to nothing: so a node runs
inline for a task up to `TASK_NS`, for items up to `ITEM_NS`.

Mirror: tests/worker/flow/test_placing.py.
"""

from typing import Final

from .model import Place

TASK_NS: Final = 100_000.0
"""Run time below which a task runs inline: about as much as the trip to a worker takes."""

ITEM_NS: Final = 20_000.0
"""The same for items, of which other cores do their share."""

SLOW_NS: Final = 5_000_000.0
"""A run that takes so long is no accident: its node goes to the workers from then on."""

PROOFS: Final = 3
"""Runs in workers that prove how long a node takes; the first are the slowest, mostly."""

INPUT_BYTES_MAX: Final = 16 << 10
"""Encoded size of an input above which nothing was proven by smaller ones."""

CHUNK_NS: Final = 4_000_000.0
"""Run time that a message with items should hold, as for ``map``."""

CHUNK_ITEMS_MAX: Final = 1_000
"""Items of such a message: a run takes in what they give in one go."""

CHUNKS_MAX: Final = 64
"""Chunks of one task in flight: one for each of so many workers, as for ``map``."""

CALLS_MAX: Final = 256
"""Items in flight of a task whose node runs beside others in a worker."""

_GROWTH: Final = 16  # of a chunk over the largest one that came back
_FALL: Final = 1 / 2  # of the difference, for a sample below the mean: first runs are slow
_RISE: Final = 1 / 8
_OUTLIER: Final = 8.0  # a sample counts as at most so many times the mean,
_OUTLIER_NS: Final = 10_000.0  # and this
_SHARES: Final = 4  # what is to be done is cut into at least so many chunks, for all workers


class Record:
    """What is known of one node.

    Attributes:
        is_tiny: Whether a task of it runs inline.
    """

    __slots__ = ("_distrusted", "_mean_ns", "_samples", "_size")

    def __init__(self) -> None:
        self._mean_ns = 0.0
        self._samples = 0
        self._size = 1  # of the largest chunk that came back
        self._distrusted = False  # it has ended a worker

    def place(self, pin: Place | None, *, item: bool) -> Place:
        """Choose where to run it."""
        if pin is not None:
            return pin
        if self._samples < PROOFS or self._distrusted:
            return "pool"
        return "inline" if self._mean_ns < (ITEM_NS if item else TASK_NS) else "pool"

    def ran(self, run_ns: float, count: int = 1) -> None:
        """Take in how long so many runs, one after the other, took together."""
        mean_ns = run_ns / count
        self._size = max(self._size, count)
        if self._samples == 0 or mean_ns > SLOW_NS:  # at once, before it holds up others again
            self._mean_ns = max(mean_ns, self._mean_ns)
        elif mean_ns < self._mean_ns:
            self._mean_ns += (mean_ns - self._mean_ns) * _FALL
        else:  # by little: the process may have had to wait for a core
            most_ns = self._mean_ns * _OUTLIER + _OUTLIER_NS
            self._mean_ns += (min(mean_ns, most_ns) - self._mean_ns) * _RISE
        self._samples += 1

    def distrust(self) -> None:
        """Note that it has ended a worker: the process that conducts is not for that."""
        self._distrusted = True

    def chunk_size(self, outstanding: int, batch_size: int | None) -> int:
        """Tell how many items the next message should hold, of those that wait or are in flight."""
        if batch_size is not None:
            return batch_size
        if not self._samples:
            return 1
        wanted = int(CHUNK_NS / max(self._mean_ns, 1.0))
        share = -(-outstanding // _SHARES)
        return max(1, min(wanted, share, self._size * _GROWTH, CHUNK_ITEMS_MAX))


class Placing:
    """What is known of all nodes of a process."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}  # full name -> what is known; bounded by the table

    def of(self, node: str) -> Record:
        """Give what is known of a node."""
        record = self._records.get(node)
        if record is None:
            record = self._records[node] = Record()
        return record
