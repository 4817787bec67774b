"""Whether a store is whole: every checksum, every chain of records, every count.

Opening or reading a damaged file can end a process: LMDB aborts, or touches a page that is not
there. So a store is looked at by a child that nobody misses, before it is trusted.

Mirror: tests/broker/journal/test_checking.py.
"""

import faulthandler
import os
import resource
import signal
import traceback
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn

import msgspec

from .errors import DamageError, HistoryError, UnusableStoreError
from .fold import RunState, fold
from .place import WAL_NAME
from .reading import (
    check_format,
    find_key,
    read_at,
    read_backwards,
    read_counts,
    read_pruned,
    read_state,
)
from .record import Accepted, Record, WithValue, key_of, read_record, sequence_at
from .rows import (
    Counts,
    Format,
    Table,
    decode_number,
    decode_uses,
    decoded,
    digest_of,
    key_hash,
    table_of,
    unsealed,
)
from .store import Store, View, page_problems
from .wal import read_wal

PROBLEMS_MAX: Final = 100
_LOOK_AT_CLOCK: Final = 256  # rows between two looks


class Report(msgspec.Struct, kw_only=True):
    """What was found.

    Attributes:
        problems: What is wrong, the first of it in words.
        problem_count: How much is wrong.
        fatal: Whether the store can't be written to: something is wrong with its structure, or with
            an open run.
        complete: Whether everything was looked at.
        records: Records looked at.
        runs: Runs looked at.
        logged: Records that only the write-ahead log has; looked at where nobody writes to it.
        values: Values kept apart that were looked at.
    """

    problems: list[str] = []
    problem_count: int = 0
    fatal: bool = False
    complete: bool = True
    records: int = 0
    runs: int = 0
    logged: int = 0
    values: int = 0

    def note(self, problem: object, *, fatal: bool = False) -> None:
        """Take down what is wrong."""
        self.problem_count += 1
        self.fatal |= fatal
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(str(problem))


def check_in_child(path: Path, *, seconds: float | None = None) -> Report:
    """Have a child look at the store in a folder; whatever becomes of it is in the report.

    The child is forked: to be called by a process of one thread that has no store open.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _check_and_exit(path, seconds, writer)
    os.close(writer)
    with open(reader, "rb") as told:
        encoded = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0:
        return msgspec.json.decode(encoded, type=Report)
    report = Report(complete=False)
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    report.note(f"reading it ended with {how}", fatal=True)
    return report


def _check_and_exit(path: Path, seconds: float | None, writer: int) -> NoReturn:
    status = 1
    try:
        # That it ends is no accident that has to be explained.
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open(writer, "wb") as told:
            told.write(msgspec.json.encode(check_folder(path, seconds=seconds)))
        status = 0
    except Exception:  # a defect of ours; damage is in the report
        traceback.print_exc()
    finally:
        os._exit(status)


def check_folder(path: Path, *, seconds: float | None = None, at_rest: bool = False) -> Report:
    """Look at the store in a folder. May end the process; see `check_in_child`.

    Args:
        path: The folder.
        seconds: How long to look at what matters less; without it, everything is looked at.
        at_rest: Whether nobody writes to it, so that its pages can be looked at, too.
    """
    report = Report()
    try:
        if at_rest:
            for problem in page_problems(path):
                report.note(f"pages: {problem}", fatal=True)
        store = Store.open_to_read(path)
    except UnusableStoreError as error:
        report.note(error, fatal=True)
        return report
    try:
        with store.view() as view:
            found = check_format(view)
            if found is None:
                return report
            counts = read_counts(view)
            if at_rest:
                _check_wal(path, found, counts, report)
            read_pruned(view)
            if seconds is None:
                _check_all(view, counts, report)
            else:
                _check_newest(view, report, monotonic() + seconds)
    except (DamageError, UnusableStoreError) as error:
        report.note(error, fatal=True)
    finally:
        store.close()
    return report


def _check_wal(path: Path, found: Format, counts: Counts, report: Report) -> None:
    """Look at what follows the store's last record in the write-ahead log."""
    try:
        _, report.logged = read_wal(path, found.store_id, counts)
    except (DamageError, OSError) as error:
        report.note(f"{path / WAL_NAME}: {error}", fatal=True)


def _check_newest(view: View, report: Report, deadline: float) -> None:
    """Look at all open runs, then at records, the newest first, as long as there is time."""
    for key, sealed in view.walk(Table.OPEN):
        _check_run(view, Table.OPEN, key, sealed, report, Counter())
    for looked_at, (key, sealed) in enumerate(view.walk(Table.LOG, backwards=True), 1):
        if looked_at % _LOOK_AT_CLOCK == 0 and monotonic() > deadline:
            report.complete = False
            return
        _check_record(key, sealed, report)


def _check_all(view: View, counts: Counts, report: Report) -> None:
    rows = dict.fromkeys(Table, 0)
    for key, sealed in view.walk(Table.LOG):
        rows[Table.LOG] += 1
        _check_record(key, sealed, report)
    used: Counter[bytes] = Counter()
    chained = keyed = 0
    for table in (Table.OPEN, Table.DONE):
        for key, sealed in view.walk(table):
            rows[table] += 1
            state = _check_run(view, table, key, sealed, report, used)
            if state is not None:
                chained += state.records
                keyed += state.key is not None
    rows[Table.KEYS] = _check_keys(view, report)
    if not report.problem_count:  # or what is wrong with a run would be told twice
        _compare(report, "records of runs", chained, rows[Table.LOG])
        _compare(report, "keys of runs", keyed, rows[Table.KEYS])
    value_bytes = _check_values(view, report, rows)
    _check_uses(view, report, rows, used)
    for table in (Table.LOG, Table.OPEN, Table.DONE, Table.KEYS, Table.VALUES, Table.USES):
        _compare(report, f"rows of {table.name.lower()}", rows[table], view.count(table))
    for name, table in _COUNTED.items():
        _compare(report, name, getattr(counts, name), rows[table])
    if not report.problem_count:
        record_bytes = sum(len(sealed) for _, sealed in view.walk(Table.LOG))
        _compare(report, "bytes", counts.bytes, record_bytes + value_bytes)


_COUNTED: Final = {
    "records": Table.LOG,
    "open": Table.OPEN,
    "done": Table.DONE,
    "keys": Table.KEYS,
    "values": Table.VALUES,
}


def _compare(report: Report, name: str, counted: int, found: int) -> None:
    if counted != found:
        report.note(f"{name}: {counted} are told of, {found} are there", fatal=True)


def _check_record(key: bytes, sealed: bytes, report: Report) -> Record | None:
    report.records += 1
    try:
        return read_record(Table.LOG.place(key), sealed)
    except DamageError as error:
        report.note(error)
        return None


def _check_run(
    view: View, table: Table, key: bytes, sealed: bytes, report: Report, used: Counter[bytes]
) -> RunState | None:
    """Fold the records of a run again: they have to lead to the state that is kept."""
    report.runs += 1
    fatal = table is Table.OPEN
    try:
        state = read_state(table, key, sealed)
        records = [(sequence, record) for sequence, record, _ in read_backwards(view, state)]
        (folded,) = fold(reversed(records)).values()
        if folded != state or table_of(state) is not table or key_of(state.run) != key:
            raise DamageError(f"run {sequence_at(key)}: its records lead to another state")
        if state.key is not None:
            found = find_key(view, state.owner, state.key)
            if found != state:
                raise DamageError(f"run {state.run} is not found by its key")
    except (DamageError, HistoryError) as error:
        report.note(error, fatal=fatal)
        return None
    for _, record in records:
        if isinstance(record, WithValue):
            used.update(record.apart)
            if fatal and isinstance(record, Accepted):
                _check_params(view, record, report)
    return state


def _check_params(view: View, record: Accepted, report: Report) -> None:
    for digest in record.apart:
        try:
            if view.get(Table.VALUES, digest) is None:
                raise DamageError(f"a parameter of run {record.run} is missing")
        except DamageError as error:
            report.note(error, fatal=True)


def _check_keys(view: View, report: Report) -> int:
    rows = 0
    for key, sealed in view.walk(Table.KEYS):
        rows += 1
        try:
            run = decoded(decode_number, unsealed(Table.KEYS, key, sealed), Table.KEYS)
            record = read_at(view, run)
            if not isinstance(record, Accepted) or record.key is None:
                raise DamageError(f"a key leads to run {run}, which has none")
            if key_hash(record.owner, record.key) != key:
                raise DamageError(f"a key leads to run {run}, whose it is not")
        except DamageError as error:
            report.note(error)
    return rows


def _check_values(view: View, report: Report, rows: dict[Table, int]) -> int:
    size = 0
    for digest, sealed in view.walk(Table.VALUES):
        rows[Table.VALUES] += 1
        report.values += 1
        try:
            content = unsealed(Table.VALUES, digest, sealed)
            if digest_of(content) != digest:
                raise DamageError(f"the value {digest.hex()} has another content")
            size += len(content)
        except DamageError as error:
            report.note(error)
    return size


def _check_uses(view: View, report: Report, rows: dict[Table, int], used: Counter[bytes]) -> None:
    whole = not report.problem_count
    for digest, sealed in view.walk(Table.USES):
        rows[Table.USES] += 1
        try:
            uses = decoded(decode_uses, unsealed(Table.USES, digest, sealed), Table.USES)
            if whole and uses.places != used[digest]:
                raise DamageError(f"the value {digest.hex()} is used {used[digest]} times")
        except DamageError as error:
            report.note(error)
