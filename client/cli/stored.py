"""Runs in a journal's folder as the command line has them. An IO shell.

They can be read whether or not a broker writes to the folder. Reading a damaged file can end a
process, so a child does it: `survive_damage`.

Mirror: tests/client/cli/test_stored.py.
"""

import os
import signal
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.fold import RunState
from pronghorn.broker.journal.place import WAL_NAME
from pronghorn.broker.journal.reading import (
    Value,
    check_format,
    events,
    find_run,
    find_state,
    last_record,
    secret_of,
    value_of,
)
from pronghorn.broker.journal.record import SEQUENCE_BYTES, Record, TaskDone, WithValue
from pronghorn.broker.journal.rows import format_run_id, is_hex, parse_run_id
from pronghorn.broker.journal.store import Store, View
from pronghorn.broker.journal.upkeep import catch_up, require_store
from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    JournalError,
    NotFoundError,
    ProtocolError,
    error_from_wire,
)
from pronghorn.broker.wire.link import CODEC_JSON, unwrap_json
from pronghorn.broker.wire.linux import die_with_parent
from pronghorn.broker.wire.places import DEFAULT_NAME, data_folder
from pronghorn.broker.wire.values import decode_value, encode_json

from .output import warn

_DAMAGE_SIGNALS = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV})


def folder_of(data: str | None, name: str | None) -> Path:
    """Choose the folder: what is given, else that of the named broker, else the default one's.

    Raises:
        InvalidArgumentError: Both are given, or the name can't be one.
    """
    if data and name:
        raise InvalidArgumentError("give --data or --name, not both")
    return Path(data).expanduser() if data else data_folder(name or DEFAULT_NAME)


def survive_damage(path: Path) -> None:
    """Go on in a child, whose exit status becomes this process's.

    Raises:
        DamageError: The child ended as reading a damaged file has it end.
        SystemExit: The child ended otherwise.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if -status in _DAMAGE_SIGNALS:
        raise DamageError(
            f"the journal in {path} is damaged: reading it ended with "
            f"{signal.Signals(-status).name}; see `pronghorn journal verify --data {path}`"
        )
    raise SystemExit(status if status >= 0 else 128 - status)


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """Open the store in a folder for reading.

    Raises:
        NotFoundError: There is none.
        UnusableStoreError: It can't be read.
    """
    require_store(path)
    survive_damage(path)
    try:
        lacks = catch_up(path)
        if lacks:
            warn(f"the newest {lacks} records are only in {path / WAL_NAME} yet, and not shown")
    except DamageError as error:
        warn(f"the newest records can't be shown: {error}")
    store = Store.open_to_read(path)
    try:
        with store.view() as view:
            check_format(view)
        yield store
    finally:
        store.close()


def state_of(view: View, run_id: str) -> RunState:
    """Return the state of the run of an id, or of the number that its first 16 digits are.

    Raises:
        InvalidArgumentError: That is no id.
        NotFoundError: There is no such run.
        DamageError: It is damaged.
    """
    try:
        if len(run_id) == 2 * SEQUENCE_BYTES and is_hex(run_id):
            state = find_state(view, int(run_id, 16))
        else:
            state = find_run(view, *parse_run_id(run_id))
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from error
    if state is None:
        raise NotFoundError(f"there is no run {run_id}, or it is kept no longer")
    return state


def id_of(view: View, state: RunState) -> str:
    """Return the id of a run."""
    return format_run_id(state.run, secret_of(view, state.run))


def result_of(view: View, state: RunState) -> Any:
    """Return the result of a run; of a map, the list of its items' results.

    Raises:
        PronghornError: What the run failed with, or `JournalError` while it is open.
        DamageError: It is damaged.
    """
    if state.status == "open":
        raise JournalError(f"run {state.run:016x} is open: it has no result yet")
    end = last_record(view, state)
    if end.failure is not None:
        raise error_from_wire(end.failure.code, end.failure.message, end.failure.details)
    return decoded(value_of(view, end)) if state.items is None else _items(view, state)


def decoded(value: Value) -> Any:
    """Return what a value stands for.

    Raises:
        ProtocolError: It can't be decoded here, such as an array where numpy is not installed.
    """
    if value.codec == CODEC_JSON:
        return msgspec.json.decode(unwrap_json(value.content))
    return decode_value(value.content, value.buffers)


def run_fields(view: View, state: RunState) -> dict[str, Any]:
    """Return what JSON tells of a run."""
    fields = {
        "id": id_of(view, state),
        "node": state.node,
        "status": state.status,
        "owner": state.owner,
        "key": state.key,
        "durability": state.durability,
        "accepted_at": moment(state.accepted_at_ns),
        "ended_at": moment(state.ended_at_ns) if state.ended_at_ns else None,
        "run_ms": state.run_ns / 1e6,
        "attempt": state.attempt,
        "attempts_max": state.attempts_max,
        "at_most_once": state.at_most_once,
        "deaths": state.deaths,
        "code": state.code or None,
        "records": state.records,
    }
    if state.items is not None:
        missing = sum(count for _, count in state.missing)
        fields |= {"items": state.items, "items_done": state.items - missing}
    return fields


def event_fields(view: View, sequence: int, record: Record) -> dict[str, Any]:
    """Return what JSON tells of a record; values are in it as far as JSON can hold them."""
    fields: dict[str, Any] = {"sequence": sequence, "event": type(record).__name__}
    at_ns = record.at_ns
    fields["at"] = moment(at_ns)
    for name in record.__struct_fields__:
        if name not in ("run", "previous", "secret", "at_ns", "value", "buffers", "apart", "codec"):
            fields[name] = msgspec.to_builtins(getattr(record, name), enc_hook=_shown)
    if isinstance(record, WithValue):
        fields["value"] = shown(value_of(view, record))
    return fields


def shown(value: Value) -> Any:
    """Return a value as JSON can hold it: itself, or its bytes in base64."""
    try:
        found = decoded(value)
        encode_json(found)
    except (ProtocolError, TypeError, ValueError, RecursionError):
        return {"msgpack": b64encode(bytes(value.content)).decode()}
    return found


def moment(at_ns: int) -> str:
    """Return a time as people and programs read it, with the offset of this place."""
    return datetime.fromtimestamp(at_ns / 1e9).astimezone().isoformat(timespec="milliseconds")


def all_events(view: View, state: RunState, *, start: int = 0) -> list[tuple[int, Record]]:
    """Return the records of a run from a sequence number on."""
    return events(view, state, start=start, limit=state.records)


def _items(view: View, state: RunState) -> list[Any]:
    results: list[Any] = [None] * (state.items or 0)
    for _, record in all_events(view, state):
        if isinstance(record, TaskDone) and not record.task:
            values = decoded(value_of(view, record))
            results[record.first : record.first + record.count] = values
            for failure in record.failures or ():
                results[record.first + failure.index] = {
                    "error": {"code": failure.code, "message": failure.message}
                }
    return results


def _shown(value: Any) -> Any:
    """Be the hook for raw msgpack, such as options."""
    return msgspec.msgpack.decode(value)
