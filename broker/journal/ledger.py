"""The writer's picture of its store: counts, and the states of all open runs.

It changes only when the store has taken the changes, so a commit that failed for want of room may
be tried again as it was.

Mirror: tests/broker/journal/test_ledger.py.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from ..wire.limits import MIB
from .errors import DamageError, HistoryError, RefusedError
from .fold import RunState
from .messages import Entry
from .posting import Posting
from .reading import check_format, read_counts, read_pruned, read_state
from .record import generation_of, sequence_at, sequence_of
from .removal import Removal
from .rows import (
    COUNTS_KEY,
    FORMAT_KEY,
    PRUNED_KEY,
    Counts,
    Format,
    Generation,
    Table,
    generation_key,
    key_hash,
    sealed_row,
)
from .store import Put, Store

SLICE_RECORDS: Final = 1000
"""What retention removes in one commit: half a millisecond, for which new records wait."""

_LOOKED_AT_MAX: Final = 10 * SLICE_RECORDS


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long ended runs are kept: the first bound that is reached counts.

    Attributes:
        age_s: Seconds since their end.
        runs: How many.
        bytes: Bytes of records and values, those of open runs included.
    """

    age_s: float = 7 * 24 * 3600.0
    runs: int = 1_000_000
    bytes: int = 4096 * MIB


class Slice(NamedTuple):
    """What one step of retention did."""

    runs: int  # so many were removed
    damaged: int  # so many could not be, for they are damaged
    finished: bool  # whether that is all for now


class Ledger:
    """The writer's picture of a store."""

    def __init__(self, store: Store, *, program: str, store_id: bytes, now_ns: int) -> None:
        """Take in what is there; an empty store becomes ours.

        Args:
            store: The store, open to write.
            program: Program and version that makes it, for people.
            store_id: What tells a new store from others.
            now_ns: Nanoseconds since 1970.

        Raises:
            UnusableStoreError: It is not ours.
            DamageError: It is damaged.
            NoSpaceError: There is no room for the first row.
            LostStoreError: Writing failed.
        """
        self._store = store
        self.open: dict[int, RunState] = {}  # run -> its state, for every open one
        self._prune_from = b""  # in the current round of retention: key of the next run
        with store.view() as view:
            found = check_format(view)
            self.counts = read_counts(view)
            self.pruned = read_pruned(view)
            for key, sealed in view.walk(Table.OPEN):
                self.open[sequence_at(key)] = read_state(Table.OPEN, key, sealed)
        if len(self.open) != self.counts.open:
            raise DamageError(f"{len(self.open)} of {self.counts.open} open runs are there")
        made = found or Format(program, store_id, now_ns)
        self.store_id = made.store_id
        if found is None:
            store.apply([_row(FORMAT_KEY, made), _row(COUNTS_KEY, self.counts)])

    def begin_epoch(self, epoch: str, now_ns: int) -> int:
        """Return the number of the newest record of a broker's epoch.

        An epoch that is not the latest one is given a generation of its own, so that its numbers
        were never used before; then it is the number before its first.

        Raises:
            NoSpaceError: There is no room for that.
            LostStoreError: Writing failed.
        """
        if epoch != self.counts.epoch:
            generation = generation_of(self.counts.last) + 1
            counts = replace(self.counts, epoch=epoch, last=sequence_of(generation, 0))
            given = Generation(epoch, now_ns)
            self._store.apply([_row(generation_key(generation), given), _row(COUNTS_KEY, counts)])
            self.counts = counts
        return self.counts.last

    def commit(self, entries: Sequence[Entry]) -> int:
        """Keep records, the next ones of the epoch, and return the number of the last.

        Raises:
            RefusedError: One does not follow from what is kept, or what it follows from is damaged;
                nothing of the batch is kept.
            NoSpaceError: There is no room for them; nothing of the batch is kept.
            LostStoreError: Writing failed.
            DamageError: What is to be changed is damaged.
        """
        with self._store.view() as view:
            posting = Posting(view, self.counts, self.open)
            try:
                posting.add_all(entries)
            except (HistoryError, DamageError) as error:
                raise RefusedError(posting.next_sequence, error.message) from error
            changes = posting.finish()
        self._store.apply([*changes, _row(COUNTS_KEY, posting.counts)])
        self.counts = posting.counts
        for run, state in posting.states.items():
            if state.status == "open":
                self.open[run] = state
            else:
                self.open.pop(run, None)
        return self.counts.last

    def has_key(self, named: tuple[str, str]) -> bool:
        """Whether there is a run of an owner and an idempotency key.

        Raises:
            DamageError: The store is damaged there.
        """
        return self._store.has(Table.KEYS, key_hash(*named))

    def prune(
        self,
        retention: Retention,
        now_ns: int,
        *,
        chosen: Callable[[RunState], bool] | None = None,
    ) -> Slice:
        """Remove a few of the ended runs that are kept no longer, the oldest first.

        Args:
            retention: What is kept.
            now_ns: Nanoseconds since 1970.
            chosen: Says instead which ended runs to remove.

        Raises:
            NoSpaceError: There is no room even for that.
            LostStoreError: Writing failed.
        """
        oldest_ns = now_ns - int(retention.age_s * 1e9)
        damaged, next_key = 0, b""
        with self._store.view() as view:
            removal = Removal(view, self.counts)
            for looked_at, (key, sealed) in enumerate(view.walk(Table.DONE, self._prune_from)):
                if removal.records >= SLICE_RECORDS or looked_at == _LOOKED_AT_MAX:
                    next_key = key
                    break
                try:
                    state = read_state(Table.DONE, key, sealed)
                    if chosen is not None:
                        expired = chosen(state)
                    elif exceeds(removal.counts, retention):
                        expired = True
                    elif state.accepted_at_ns <= oldest_ns:
                        expired = state.ended_at_ns <= oldest_ns
                    else:  # runs are in the order in which they were accepted
                        break
                    if expired:
                        removal.add(state)
                except DamageError:
                    damaged += 1
            changes = removal.finish()
        if removal.runs:
            pruned = removal.added_to(self.pruned, now_ns)
            self._store.apply(
                [*changes, _row(PRUNED_KEY, pruned), _row(COUNTS_KEY, removal.counts)]
            )
            self.counts, self.pruned = removal.counts, pruned
        self._prune_from = next_key
        return Slice(removal.runs, damaged, not next_key)


def exceeds(counts: Counts, retention: Retention) -> bool:
    """Whether there are more ended runs than are kept, whatever their age."""
    return bool(counts.done) and (counts.done > retention.runs or counts.bytes > retention.bytes)


def _row(key: bytes, row: object) -> Put:
    return Put(Table.META, key, sealed_row(Table.META, key, row))
