"""Reading runs out of a store: by id, by key, by what they are like, and all that they did.

What is given out was checked: it is what was written, and nothing of a run is missing. A run that
is not there may have been removed by retention, or was never kept.

Mirror: tests/broker/journal/test_reading.py.
"""

from collections.abc import Iterator
from heapq import merge
from hmac import compare_digest
from typing import Final

import msgspec
from msgspec import Raw

from .errors import DamageError, NewerFormatError, UnusableStoreError
from .fold import RunState
from .record import (
    HEADER_BYTES,
    Accepted,
    Advanced,
    Ended,
    Record,
    Reopened,
    TaskDone,
    WithValue,
    key_of,
    parse_record,
)
from .rows import (
    COUNTS_KEY,
    FORMAT_KEY,
    PRUNED_KEY,
    Counts,
    Filter,
    Format,
    Pruned,
    Table,
    Uses,
    decode_counts,
    decode_format,
    decode_number,
    decode_pruned,
    decode_state,
    decode_uses,
    decoded,
    key_hash,
    unsealed,
)
from .store import View

PAGE_RUNS: Final = 1000
"""Runs of one answer, so that a reader holds its view for milliseconds."""

_LOOKED_AT_MAX: Final = 20 * PAGE_RUNS

Event = tuple[int, Record]
"""Sequence number, record."""


class Page(msgspec.Struct, frozen=True, array_like=True):
    """A part of a list, newest first; `before` is where the next one goes on, `None` at the end."""

    runs: tuple[RunState, ...]
    before: int | None


class Value(msgspec.Struct, frozen=True):
    """A value with its buffers; `codec` says how it is encoded, as in `Accepted`."""

    content: Raw
    buffers: tuple[bytes, ...]
    codec: int


def check_format(view: View) -> Format | None:
    """Return whose store that is; `None` if it is empty.

    Raises:
        UnusableStoreError: It is not ours, or of a newer format.
        DamageError: It is damaged.
    """
    try:
        row = view.get(Table.META, FORMAT_KEY)
    except NewerFormatError as error:
        raise UnusableStoreError(
            f"the journal was made by a newer version of Pronghorn: {error}"
        ) from error
    if row is not None:
        return decoded(decode_format, row, Table.META)
    if any(view.count(table) for table in Table if table is not Table.META):
        raise UnusableStoreError("the file holds tables of somebody else")
    return None


def read_counts(view: View) -> Counts:
    """Return what the tables hold, as it was when they were changed last."""
    row = view.get(Table.META, COUNTS_KEY)
    return Counts() if row is None else decoded(decode_counts, row, Table.META)


def read_pruned(view: View) -> Pruned:
    """Return what retention has removed so far."""
    row = view.get(Table.META, PRUNED_KEY)
    return Pruned() if row is None else decoded(decode_pruned, row, Table.META)


def read_uses(view: View, digest: bytes) -> Uses | None:
    """Return how a value that is kept apart is used; `None` if there is no such value."""
    row = view.get(Table.USES, digest)
    return None if row is None else decoded(decode_uses, row, Table.USES)


def read_state(table: Table, key: bytes, sealed: bytes) -> RunState:
    """Return the state of a run from its row.

    Raises:
        DamageError: It is damaged.
    """
    return decoded(decode_state, unsealed(table, key, sealed), table)


def read_at(view: View, sequence: int) -> Record | None:
    """Return the record that has a number, `None` if none has.

    Raises:
        DamageError: It is damaged.
    """
    key = key_of(sequence)
    body = view.get(Table.LOG, key)
    return None if body is None else parse_record(Table.LOG.place(key), body)


def find_state(view: View, run: int) -> RunState | None:
    """Return the state of a run, `None` if it is not there.

    Raises:
        DamageError: It is damaged.
    """
    key = key_of(run)
    for table in (Table.OPEN, Table.DONE):
        row = view.get(table, key)
        if row is not None:
            return decoded(decode_state, row, table)
    if view.get(Table.LOG, key) is not None:
        raise DamageError(f"run {run} has records and no state")
    return None


def find_run(view: View, run: int, secret: bytes) -> RunState | None:
    """Return the state of the run of an id, `None` if there is none.

    Raises:
        DamageError: It is damaged.
    """
    state = find_state(view, run)
    if state is None or not compare_digest(secret_of(view, run), secret):
        return None
    return state


def find_key(view: View, owner: str, key: str) -> RunState | None:
    """Return the state of the run of an idempotency key, `None` if there is none.

    Raises:
        DamageError: It is damaged.
    """
    row = view.get(Table.KEYS, key_hash(owner, key))
    if row is None:
        return None
    run = decoded(decode_number, row, Table.KEYS)
    state = find_state(view, run)
    if state is None or (state.owner, state.key) != (owner, key):
        raise DamageError(f"the key {key!r} leads to run {run}, which is not there or not its own")
    return state


def secret_of(view: View, run: int) -> bytes:
    """Return the part of a run's id that can't be guessed.

    Raises:
        DamageError: The run's beginning is missing or damaged.
    """
    return _accepted(view, run).secret


def list_runs(view: View, chosen: Filter, *, before: int | None = None, limit: int) -> Page:
    """Return the newest runs that are chosen, of those accepted before one.

    A page may be shorter than the limit, and empty, although there is more: look at `before`.

    Raises:
        DamageError: One is damaged.
    """
    start = b"" if before is None else key_of(before)
    tables = [Table.OPEN, Table.DONE]
    if chosen.statuses == ("open",):
        tables = [Table.OPEN]
    rows = merge(
        *(_rows_before(view, table, start) for table in tables),
        key=lambda row: row[0],
        reverse=True,
    )
    found: list[RunState] = []
    for looked_at, (key, table, sealed) in enumerate(rows, 1):
        state = read_state(table, key, sealed)
        if chosen.meets(state):
            found.append(state)
        if len(found) == limit or looked_at == _LOOKED_AT_MAX:
            return Page(tuple(found), state.run)
    return Page(tuple(found), None)


def open_runs(view: View, *, after: int, limit: int) -> list[tuple[RunState, Accepted]]:
    """Return open runs in the order in which they were accepted, from the one after that on.

    Raises:
        DamageError: One is damaged.
    """
    found: list[tuple[RunState, Accepted]] = []
    for key, sealed in view.walk(Table.OPEN, key_of(after + 1)):
        if len(found) == limit:
            break
        state = read_state(Table.OPEN, key, sealed)
        found.append((state, _accepted(view, state.run)))
    return found


def read_backwards(view: View, state: RunState) -> Iterator[tuple[int, Record, int]]:
    """Give the records of a run, the last first: sequence number, record, bytes on disk.

    Raises:
        DamageError: One is missing or damaged.
    """
    sequence = state.last
    for left in range(state.records, 0, -1):
        key = key_of(sequence)
        body = view.get(Table.LOG, key)
        if body is None:
            raise DamageError(f"record {sequence} of run {state.run} is missing")
        record = parse_record(Table.LOG.place(key), body)
        previous = record.previous
        if record.run != state.run or (previous == 0) != (left == 1):
            raise DamageError(f"record {sequence} is not what run {state.run} has there")
        yield sequence, record, len(body) + HEADER_BYTES
        sequence = previous


def events(view: View, state: RunState, *, start: int = 0, limit: int = PAGE_RUNS) -> list[Event]:
    """Return the records of a run from a sequence number on, in order.

    It costs as much as all records from there to the end, whatever the limit.

    Raises:
        DamageError: One is missing or damaged.
    """
    found: list[Event] = []
    for sequence, record, _ in read_backwards(view, state):
        if sequence < start:
            break
        found.append((sequence, record))
    found.reverse()
    return found[:limit]


def history(
    view: View, state: RunState, *, after: int, bytes_max: int
) -> tuple[list[tuple[int, Value | None]], bool]:
    """Return what a run of a workflow has come through, behind a record, in order.

    Costs as `events`.

    Returns:
        Sequence number and value of each `Advanced`, or `None` for `Reopened`; as many as have so
        many bytes together, and at least one. And whether these are all.

    Raises:
        DamageError: A record or a value is missing or damaged.
    """
    found: list[tuple[int, Value | None]] = []
    size = 0
    for sequence, record in events(view, state, start=after + 1, limit=state.records):
        if not isinstance(record, Advanced | Reopened):
            continue
        if size > bytes_max or len(found) == PAGE_RUNS:
            return found, False
        value = value_of(view, record) if isinstance(record, Advanced) else None
        found.append((sequence, value))
        if value is not None:
            size += len(value.content) + sum(map(len, value.buffers))
    return found, True


def record_at(view: View, state: RunState, sequence: int) -> Record | None:
    """Return the record of a run that has a number, `None` if none of it has.

    Raises:
        DamageError: It is damaged.
    """
    record = read_at(view, sequence)
    return record if record is not None and record.run == state.run else None


def value_of(view: View, record: WithValue) -> Value:
    """Return the value of a record, wherever it is kept.

    Raises:
        DamageError: It is missing or damaged.
    """
    codec = 0 if isinstance(record, TaskDone | Advanced) else record.codec
    if not record.apart:
        return Value(record.value, (), codec)
    contents = []
    for digest in record.apart:
        content = view.get(Table.VALUES, digest)
        if content is None:
            raise DamageError(f"the value {digest.hex()} of run {record.run} is missing")
        contents.append(content)
    return Value(Raw(contents[0]), tuple(contents[1:]), codec)


def params_of(view: View, state: RunState) -> Value:
    """Return the parameters of a run.

    Raises:
        DamageError: They are missing or damaged.
    """
    return value_of(view, _accepted(view, state.run))


def last_record(view: View, state: RunState) -> Ended:
    """Return the record that ended a run.

    Raises:
        DamageError: It is missing or damaged.
    """
    assert state.status != "open"
    _, record, _ = next(read_backwards(view, state))
    if not isinstance(record, Ended):
        raise DamageError(f"run {state.run} is {state.status} without an end")
    return record


def _rows_before(view: View, table: Table, start: bytes) -> Iterator[tuple[bytes, Table, bytes]]:
    for key, sealed in view.walk(table, start, backwards=True):
        yield key, table, sealed


def _accepted(view: View, run: int) -> Accepted:
    record = read_at(view, run)
    if not isinstance(record, Accepted) or record.run != run:
        raise DamageError(f"run {run} has a state and no beginning")
    return record
