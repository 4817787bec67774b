"""Compares what came of a rehearsal with what its case expects.

An entry of ``expected`` is one way it may go; a case agrees if one of them does. Of an entry only
what it holds is compared: ``status``; ``output``, where null and ``{}`` are the same;
``executions`` by task, item, input and status, in any order, with ``items_count: 0`` for an empty
list that ran nothing; ``errors`` by the tasks that they name. An entry with ``inspection_errors``
wants the definition refused.

Mirror: tests/worker/flow/test_comparison.py.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .model import COMMANDS
from .rehearsal import Case, Rehearsed

SHOWN_MAX = 5
"""Executions that one difference names."""


def differences(case: Case, rehearsed: Rehearsed) -> list[str]:
    """Tell how a rehearsal differs from the entry of ``expected`` that it is nearest to.

    Returns:
        Lines for people; none if it agrees, or if nothing is expected.
    """
    report = rehearsed.report()
    all_ways = [_differences(expected, report) for expected in case.expected or ()]
    return min(all_ways, key=len, default=[])


def _differences(expected: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    refused = report.get("inspection_errors")
    if "inspection_errors" in expected:
        return [] if refused else ["expected the definition to be refused, but it ran"]
    if refused:
        return [f"the definition was refused: {line}" for line in refused]
    found: list[str] = []
    if "status" in expected and expected["status"] != report["status"]:
        found.append(f"status: expected {expected['status']}, got {report['status']}")
    if "output" in expected and (expected["output"] or {}) != (report["output"] or {}):
        found.append(f"output: expected {_json(expected['output'])}, got {_json(report['output'])}")
    if "executions" in expected:
        found += _different_executions(expected["executions"], report["executions"])
    if "errors" in expected:
        found += _different_errors(expected["errors"] or [], report["errors"])
    return found


def _different_executions(
    expected: Iterable[Mapping[str, Any]], got: Iterable[Mapping[str, Any]]
) -> list[str]:
    wanted = Counter(_execution(each) for each in expected if each.get("items_count") != 0)
    played = Counter(_execution(each) for each in got)
    return [
        *_lines("executions: missing", wanted - played),
        *_lines("executions: not expected", played - wanted),
    ]


def _different_errors(
    expected: Iterable[Mapping[str, Any]], got: Iterable[Mapping[str, Any]]
) -> list[str]:
    wanted, noted = _tasks(expected), _tasks(got)
    return [
        *(f"errors: missing one of {task}" for task in sorted(wanted - noted)),
        *(f"errors: one of {task} is not expected" for task in sorted(noted - wanted)),
    ]


def _tasks(errors: Iterable[Mapping[str, Any]]) -> set[str]:
    return {error["task_id"] for error in errors if error.get("task_id")} - {*COMMANDS}


def _execution(each: Mapping[str, Any]) -> str:
    item = each.get("item")
    where = each["task"] if item is None else f"{each['task']}[{item}]"
    return f"{where} {_json(each.get('input') or {})} {each.get('status')}"


def _lines(title: str, executions: Counter[str]) -> list[str]:
    shown: Sequence[tuple[str, int]] = executions.most_common(SHOWN_MAX)
    lines = [
        f"{title} {text}" + (f" ({count} times)" if count > 1 else "") for text, count in shown
    ]
    if len(executions) > SHOWN_MAX:
        lines.append(f"{title} {len(executions) - SHOWN_MAX} more kinds")
    return lines


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
