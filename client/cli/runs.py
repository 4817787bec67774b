"""``pronghorn runs``: the runs that a journal has. An IO shell.

Mirror: tests/client/cli/test_runs.py.
"""

import re
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from pronghorn.broker.journal.fold import RunState
from pronghorn.broker.journal.reading import PAGE_RUNS, list_runs, params_of, value_of
from pronghorn.broker.journal.record import Ended, Status
from pronghorn.broker.journal.rows import Filter
from pronghorn.broker.journal.store import Store
from pronghorn.broker.journal.upkeep import remove_runs, require_store
from pronghorn.broker.wire.codec import shortened
from pronghorn.broker.wire.errors import InvalidArgumentError

from .output import aligned, json_line, write, write_object, write_result, write_table
from .stored import (
    all_events,
    event_fields,
    id_of,
    moment,
    opened,
    result_of,
    run_fields,
    shown,
    state_of,
    survive_damage,
)

_HEADINGS = ("Run", "Node", "Status", "Accepted", "Took", "Key")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def list_(path: Path, chosen: Filter, *, limit: int, as_json: bool) -> None:
    """Print the newest runs that are chosen: as a table, or as a JSON array."""
    found: list[Any] = []
    with opened(path) as store:
        for view, state in _walk(store, chosen, limit):
            found.append(run_fields(view, state) if as_json else _row(view, state))
    if as_json:
        write_object(found)
    else:
        write_table(_HEADINGS, found)


def show(path: Path, run_id: str, *, as_json: bool) -> None:
    """Print all that is known of a run, its parameters and what it ended with included."""
    with opened(path) as store, store.view() as view:
        state = state_of(view, run_id)
        fields = run_fields(view, state) | {"params": shown(params_of(view, state))}
        for _, record in all_events(view, state):
            if isinstance(record, Ended):
                fields["result"] = shown(value_of(view, record))
                failure = record.failure
                fields["error"] = failure and {"code": failure.code, "message": failure.message}
    if as_json:
        write_object(fields)
        return
    write(
        aligned(
            [
                (name.replace("_", " "), _text(value))
                for name, value in fields.items()
                if value is not None
            ]
        )
    )


def result(path: Path, run_id: str, *, as_json: bool) -> None:
    """Print the result of a run, as `pronghorn call` does; raise what it failed with."""
    with opened(path) as store, store.view() as view:
        state = state_of(view, run_id)
        found = result_of(view, state)
    write_result(found, state.node, as_json=as_json)


def events(path: Path, run_id: str, *, start: int, as_json: bool) -> None:
    """Print what has happened to a run, from a sequence number on."""
    with opened(path) as store, store.view() as view:
        state = state_of(view, run_id)
        found = [event_fields(view, *event) for event in all_events(view, state, start=start)]
    if as_json:
        write(b"".join(json_line(fields, state.node) for fields in found))
        return
    common = ("sequence", "at", "event")
    rows = [
        (
            *(str(fields[name]) for name in common),
            " ".join(
                f"{name}={_text(value)}"
                for name, value in fields.items()
                if name not in common and value not in (None, "", 0, False)
            ),
        )
        for fields in found
    ]
    write_table(("Sequence", "At", "Event", "What"), rows)


def prune(path: Path, chosen: Filter, *, as_json: bool) -> None:
    """Remove the ended runs that are chosen, from a journal that no broker writes to."""
    require_store(path)
    survive_damage(path)
    removed = remove_runs(path, chosen.meets)
    if as_json:
        write_object({"removed": removed})
    else:
        write(f"{removed} runs removed\n")


def parse_filter(
    *,
    statuses: Sequence[str],
    node: str | None,
    owner: str | None,
    since: str | None,
    until: str | None,
) -> Filter:
    """Make a filter of what the command line says.

    Raises:
        InvalidArgumentError: Something of it can't be.
    """
    for status in statuses:
        if status not in get_args(Status):
            known = ", ".join(get_args(Status))
            raise InvalidArgumentError(f"--status {status}: expected one of {known}")
    return Filter(
        statuses=tuple(statuses),  # type: ignore[arg-type]
        node=node,
        owner=owner,
        since_ns=_parse_moment("--since", since),
        until_ns=_parse_moment("--until", until),
    )


def _parse_moment(option: str, text: str | None) -> int | None:
    """Return a time in nanoseconds since 1970: an age such as 2h, or a date with or without time.

    Raises:
        InvalidArgumentError: It is neither.
    """
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age:
        return time.time_ns() - int(float(age[1]) * _UNITS_S[age[2]] * 1e9)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(
            f"{option} {text}: expected an age such as 90s, 15m, 2h or 7d, or a time such as "
            "2026-01-31T12:00"
        ) from error


def _walk(store: Store, chosen: Filter, limit: int) -> Any:
    """Give views and states of runs; each view is left within a page."""
    before, left = None, limit
    while left > 0:
        with store.view() as view:
            page = list_runs(view, chosen, before=before, limit=min(left, PAGE_RUNS))
            for state in page.runs:
                yield view, state
        left -= len(page.runs)
        before = page.before
        if before is None:
            return


def _row(view: Any, state: RunState) -> tuple[str, ...]:
    took_ns = state.ended_at_ns - state.accepted_at_ns
    return (
        id_of(view, state),
        state.node if state.items is None else f"{state.node} x {state.items}",
        state.status if not state.code else f"{state.status} ({state.code})",
        moment(state.accepted_at_ns),
        f"{took_ns / 1e6:,.1f} ms" if state.ended_at_ns else "",
        state.key or "",
    )


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json_line(value, "it").decode().rstrip()
    return shortened(text)
