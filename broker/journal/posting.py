"""What a batch of records changes in the tables: worked out first, then written in one commit.

Mirror: tests/broker/journal/test_posting.py.
"""

from collections.abc import Mapping, Sequence

from msgspec import Raw
from msgspec.structs import replace

from ..wire.messages import NIL
from .errors import HistoryError
from .fold import RunState, advance
from .reading import find_state, read_uses
from .record import Accepted, Record, WithValue, encode_body, key_of, seal
from .rows import (
    APART_BYTES_MIN,
    Counts,
    Table,
    Uses,
    digest_of,
    key_hash,
    sealed_row,
    sealed_state,
    table_of,
)
from .store import Change, Delete, Put, View

Buffers = Sequence[bytes]


class Posting:
    """The changes of one commit.

    Contract: `add` all records, then `finish` once; after an error it is of no use.
    """

    def __init__(self, view: View, counts: Counts, open_runs: Mapping[int, RunState]) -> None:
        self._view = view
        self._open_runs = open_runs
        self.counts = counts  # as they will be, once finished
        self.states: dict[int, RunState] = {}  # run -> what it will be, for those concerned
        self._kept: dict[int, RunState | None] = {}  # run -> what is kept of it now
        self._records: list[Change] = []
        self._keys: dict[bytes, int] = {}  # hash of an idempotency key -> run
        # digest -> content and how many places of this batch name it
        self._values: dict[bytes, tuple[bytes | Raw, int]] = {}
        self._bytes = 0

    def add(self, record: Record, buffers: Buffers) -> None:
        """Add the next record, with the buffers of its value.

        Raises:
            HistoryError: It does not follow from those before it.
        """
        sequence = self.counts.last + len(self._records) + 1
        state = advance(self._state_of(record), sequence, record)
        if isinstance(record, Accepted) and record.key is not None:
            self._claim(key_hash(record.owner, record.key), record)
        if isinstance(record, WithValue):
            record = self._set_apart(record, sequence, buffers)
        elif buffers:
            raise HistoryError(f"record {sequence} has no value and can't have buffers")
        key = key_of(sequence)
        sealed = seal(Table.LOG.place(key), encode_body(record))
        self._records.append(Put(Table.LOG, key, sealed, append=True))
        self._bytes += len(sealed)
        self.states[record.run] = state

    def finish(self) -> list[Change]:
        """Return all changes, and bring `counts` up to date.

        Raises:
            DamageError: What is to be changed is damaged.
        """
        changes = self._records.copy()
        opened = done = 0
        for run, state in self.states.items():
            kept, key = self._kept[run], key_of(run)
            if kept is None or table_of(kept) is not table_of(state):
                opened += (state.status == "open") - (kept is not None and kept.status == "open")
                done += (state.status != "open") - (kept is not None and kept.status != "open")
                if kept is not None:
                    changes.append(Delete(table_of(kept), key))
            changes.append(Put(table_of(state), key, sealed_state(state)))
        for hashed, run in self._keys.items():
            changes.append(Put(Table.KEYS, hashed, sealed_row(Table.KEYS, hashed, run)))
        counts = self.counts
        values, value_bytes = self._keep_values(changes)
        self.counts = replace(
            counts,
            last=counts.last + len(self._records),
            records=counts.records + len(self._records),
            open=counts.open + opened,
            done=counts.done + done,
            keys=counts.keys + len(self._keys),
            values=counts.values + values,
            bytes=counts.bytes + self._bytes + value_bytes,
        )
        return changes

    def _state_of(self, record: Record) -> RunState | None:
        run = record.run
        if run in self.states:
            return self.states[run]
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
        if not buffers and len(bytes(record.value)) < APART_BYTES_MIN:
            return record
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
