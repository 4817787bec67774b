"""``pronghorn journal``: a journal as a file, to be looked at, copied and made small. An IO shell.

Mirror: tests/client/cli/test_journals.py.
"""

from pathlib import Path
from typing import IO

import msgspec

from pronghorn.broker.journal.checking import Report, check_folder
from pronghorn.broker.journal.errors import DamageError, UnusableStoreError
from pronghorn.broker.journal.place import DataFolder
from pronghorn.broker.journal.reading import (
    PAGE_RUNS,
    check_format,
    list_runs,
    read_counts,
    read_pruned,
)
from pronghorn.broker.journal.record import generation_of
from pronghorn.broker.journal.rows import Filter
from pronghorn.broker.journal.store import Store
from pronghorn.broker.journal.upkeep import backup, compact, require_store
from pronghorn.broker.wire.errors import InvalidArgumentError

from .output import aligned, json_line, warn, write, write_object
from .stored import all_events, event_fields, moment, opened, run_fields, survive_damage


def stat(path: Path, *, as_json: bool) -> None:
    """Print what a journal holds and how large it is."""
    with opened(path) as store:
        with store.view() as view:
            made, counts, pruned = check_format(view), read_counts(view), read_pruned(view)
            used = view.used_bytes()
        fields = {
            "folder": str(path),
            "made_by": made and made.program,
            "made_at": made and moment(made.created_at_ns),
            "starts_of_brokers": generation_of(counts.last),
            "open_runs": counts.open,
            "ended_runs": counts.done,
            "records": counts.records,
            "keys": counts.keys,
            "values_apart": counts.values,
            "content_bytes": counts.bytes,
            "used_bytes": used,
            "file_bytes": store.file_bytes(),
            "removed_runs": pruned.runs,
            "removed_at": moment(pruned.at_ns) if pruned.at_ns else None,
        }
    if as_json:
        write_object(fields)
        return
    rows = [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in fields.items()
        if value is not None
    ]
    write(aligned(rows))


def verify(path: Path, *, as_json: bool) -> None:
    """Look at everything in a journal and print what is wrong.

    Raises:
        DamageError: Something is.
    """
    require_store(path)
    survive_damage(path)
    report = _checked(path)
    if as_json:
        write_object(msgspec.to_builtins(report))
    else:
        write(
            f"{report.runs:,} runs, {report.records:,} records, {report.values:,} values apart\n"
            + "".join(f"{problem}\n" for problem in report.problems)
        )
    if report.problem_count:
        raise DamageError(f"the journal in {path} is damaged: {report.problem_count} problems")


def back_up(path: Path, target: str, *, as_json: bool) -> None:
    """Copy a journal as it is now into a new folder, while a broker writes to it or not."""
    require_store(path)
    survive_damage(path)
    size = backup(path, Path(target).expanduser())
    if as_json:
        write_object({"bytes": size})
    else:
        write(f"{size:,} bytes in {target}\n")


def make_small(path: Path, *, as_json: bool) -> None:
    """Rewrite a journal without its free pages, while no broker writes to it."""
    require_store(path)
    survive_damage(path)
    sizes = compact(path)
    if as_json:
        write_object(sizes._asdict())
    else:
        write(f"{sizes.before:,} bytes before, {sizes.after:,} now\n")


def export(path: Path, target: str | None) -> None:
    """Write all runs with all that happened to them, one line of JSON each, the newest first.

    Raises:
        InvalidArgumentError: The file can't be written.
    """
    if target in (None, "-"):
        _export(path, None)
        return
    assert target is not None
    require_store(path)
    try:
        with open(Path(target).expanduser(), "xb") as file:
            _export(path, file)
    except OSError as error:
        raise InvalidArgumentError(f"can't write {target}: {error.strerror}") from error


def _export(path: Path, file: IO[bytes] | None) -> None:
    with opened(path) as store:
        before = None
        while True:
            before = _export_page(store, before, file)
            if before is None:
                return


def _export_page(store: Store, before: int | None, file: IO[bytes] | None) -> int | None:
    with store.view() as view:
        page = list_runs(view, Filter(), before=before, limit=PAGE_RUNS)
        lines = []
        for state in page.runs:
            fields = run_fields(view, state)
            fields["events"] = [event_fields(view, *event) for event in all_events(view, state)]
            lines.append(json_line(fields, state.node))
    if file is None:
        write(b"".join(lines))
    else:
        file.write(b"".join(lines))
    return page.before


def _checked(path: Path) -> Report:
    """Look at everything; at the pages too, if nobody writes to them."""
    try:
        folder = DataFolder.hold(path)
    except UnusableStoreError as error:
        warn(f"the pages themselves are not looked at: {error}")
        return check_folder(path)
    try:
        return check_folder(path, at_rest=True)
    finally:
        folder.close()
