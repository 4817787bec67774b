"""What a batch of records changes in the tables: worked out first, then written in one commit.

Mirror: tests/broker/journal/test_posting.py.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from msgspec import Raw
from msgspec.structs import replace

from ..wire.messages import NIL
from .errors import HistoryError
from .fold import RunState, advance, ended_at_once
from .messages import Buffers, Entry, Void
from .reading import find_state, read_uses
from .record import WITH_VALUE, Accepted, Ended, Record, WithValue, encode_body, key_of, seal
from .rows import (
    APART_BYTES_MIN,
    Counts,
    Table,
    Uses,
    digest_of,
    encode_row,
    key_hash,
    sealed_row,
    table_of,
)
from .store import Change, Delete, Put, Puts, View


class Posting:
    """The changes of one commit.

    Contract: `add_all` records, then `finish` once; after an error it is of no use.
    """

    def __init__(self, view: View, counts: Counts, open_runs: Mapping[int, RunState]) -> None:
        self._view = view
        self._open_runs = open_runs
        self.counts = counts  # as they will be, once finished
        # run -> what it will be, for those concerned that are open now, or will be
        self.states: dict[int, RunState] = {}
        self._kept: dict[int, RunState | None] = {}  # run -> what is kept of it now
        self.next_sequence = counts.last + 1  # of the next record, or of the one that failed
        self._records: list[tuple[bytes, bytes]] = []  # rows of the log
        self._keys: dict[bytes, int] = {}  # hash of an idempotency key -> run
        # digest -> content and how many places of this batch name it
        self._values: dict[bytes, tuple[bytes | Raw, int]] = {}
        self._bytes = 0
        self._calls: dict[int, RunState] = {}  # of runs that begin and end in this batch

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Add the next records, each with the buffers of its value.

        Raises:
            HistoryError: One does not follow from those before it.
        """
        before: tuple[Accepted, Buffers] | None = None  # which a call may begin with
        for record, buffers in entries:
            if before is not None:
                if type(record) is Ended and record.run == before[0].run:
                    self._add_call(*before, record, buffers)
                    before = None
                    continue
                self._add(*before)
                before = None
            if type(record) is Accepted and record.key is None:
                before = record, buffers
            elif isinstance(record, Void):
                self.next_sequence += 1
            else:
                self._add(record, buffers)
        if before is not None:
            self._add(*before)

    def _add_call(
        self, accepted: Accepted, params: Buffers, ended: Ended, results: Buffers
    ) -> None:
        """Add the first two records of a run, which end it."""
        self._calls[accepted.run] = ended_at_once(self.next_sequence, accepted, ended)
        self._log(accepted, params)
        self._log(ended, results)

    def _add(self, record: Record, buffers: Buffers) -> None:
        sequence, run = self.next_sequence, record.run
        state = self.states.get(run) or self._state_before(record)
        state = advance(state, sequence, record)
        if type(record) is Accepted and record.key is not None:
            self._claim(key_hash(record.owner, record.key), record)
        self._log(record, buffers)
        self.states[run] = state

    def _log(self, record: Record, buffers: Buffers) -> None:
        """Add the row of the next record."""
        sequence = self.next_sequence
        if type(record) in WITH_VALUE:
            of = cast(WithValue, record)
            if buffers or of.buffers or of.apart or len(of.value) >= APART_BYTES_MIN:
                record = self._set_apart(of, sequence, buffers)
        elif buffers:
            raise HistoryError(f"record {sequence} has no value and can't have buffers")
        key = key_of(sequence)
        sealed = seal(Table.LOG.place(key), encode_body(record))
        self._records.append((key, sealed))
        self._bytes += len(sealed)
        self.next_sequence = sequence + 1

    def finish(self) -> list[Change]:
        """Return all changes, and bring `counts` up to date.

        Raises:
            DamageError: What is to be changed is damaged.
        """
        rows: dict[Table, list[tuple[bytes, bytes]]] = {Table.OPEN: [], Table.DONE: []}
        for run, state in self._calls.items():
            key = key_of(run)
            rows[Table.DONE].append((key, seal(Table.DONE.place(key), encode_row(state))))
        moved: list[Change] = []
        opened, done = 0, len(self._calls)
        for run, state in self.states.items():
            kept, key, table = self._kept[run], key_of(run), table_of(state)
            if kept is None or table_of(kept) is not table:
                opened += (table is Table.OPEN) - (kept is not None and kept.status == "open")
                done += (table is Table.DONE) - (kept is not None and kept.status != "open")
                if kept is not None:
                    moved.append(Delete(table_of(kept), key))
            rows[table].append((key, seal(table.place(key), encode_row(state))))
        changes: list[Change] = [Puts(Table.LOG, self._records, append=True), *moved]
        changes += (Puts(table, of_table) for table, of_table in rows.items() if of_table)
        for hashed, run in self._keys.items():
            changes.append(Put(Table.KEYS, hashed, sealed_row(Table.KEYS, hashed, run)))
        counts = self.counts
        values, value_bytes = self._keep_values(changes)
        self.counts = replace(
            counts,
            last=self.next_sequence - 1,
            records=counts.records + len(self._records),
            open=counts.open + opened,
            done=counts.done + done,
            keys=counts.keys + len(self._keys),
            values=counts.values + values,
            bytes=counts.bytes + self._bytes + value_bytes,
        )
        return changes

    def _state_before(self, record: Record) -> RunState | None:
        """Return what is kept of a run that has had no record in this batch."""
        run = record.run
        ended = self._calls.pop(run, None)  # it is reopened at once
        if ended is not None:
            self._kept[run] = None
            return ended
        kept = self._open_runs.get(run)
        if kept is None and not isinstance(record, Accepted):
            kept = find_state(self._view, run)
        self._kept[run] = kept
        return kept

    def _claim(self, hashed: bytes, record: Accepted) -> None:
        """Have an idempotency key lead to a run; it must not lead to another."""
        if hashed in self._keys or self._view.get(Table.KEYS, hashed) is not None:
            raise HistoryError(
                f"record {record.run} accepts a run with the key {record.key!r} of another run"
            )
        self._keys[hashed] = record.run

    def _set_apart(self, record: WithValue, sequence: int, buffers: Buffers) -> WithValue:
        """Take a large value out of its record."""
        if record.apart or record.buffers != len(buffers):
            raise HistoryError(
                f"record {sequence} has {len(buffers)} buffers, not {record.buffers}"
            )
        digests = []
        for content in (record.value, *buffers):
            digest = digest_of(content)
            digests.append(digest)
            self._values[digest] = content, self._values.get(digest, (content, 0))[1] + 1
        return replace(record, value=NIL, apart=tuple(digests))

    def _keep_values(self, changes: list[Change]) -> tuple[int, int]:
        """Add the changes for values that are kept apart; returns new ones and their bytes."""
        new = new_bytes = 0
        for digest, (content, places) in self._values.items():
            uses = read_uses(self._view, digest)
            if uses is None:
                kept = bytes(content)
                changes.append(Put(Table.VALUES, digest, seal(Table.VALUES.place(digest), kept)))
                uses = Uses(0, len(kept))
                new += 1
                new_bytes += len(kept)
            uses = replace(uses, places=uses.places + places)
            changes.append(Put(Table.USES, digest, sealed_row(Table.USES, digest, uses)))
        return new, new_bytes
