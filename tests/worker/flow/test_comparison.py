"""Differences between what came and what was expected."""

from typing import Any

import pytest

from pronghorn.worker.flow.comparison import differences
from pronghorn.worker.flow.rehearsal import read_case, rehearse

PASSING = {
    "status": "succeeded",
    "output": {"r": 1},
    "executions": [{"task": "a", "item": None, "input": None, "status": "succeeded"}],
    "errors": [],
}


def found(*expected: dict[str, Any], action: str = "x") -> list[str]:
    workflow = {
        "tasks": {"a": {"action": action, "next": [{"publish": [{"r": "{{ result() }}"}]}]}},
        "output": [{"r": "{{ r }}"}],
    }
    case = read_case(
        {"workflow": workflow, "default_mock": {"result": 1}, "expected": list(expected)}
    )
    return differences(case, rehearse(case))


def test_agreement() -> None:
    assert found() == []
    assert found(PASSING) == []
    assert found({"status": "failed"}, PASSING) == [], "one of them is enough"
    assert found({}) == [], "only what is there is compared"
    assert found({"errors": [{"task_id": "fail"}, {"message": "m"}]}) == []
    assert found({"executions": [*PASSING["executions"], {"task": "z", "items_count": 0}]}) == []  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": "failed"}, ["status: expected failed, got succeeded"]),
        ({"output": None}, ['output: expected null, got {"r":1}']),
        ({"errors": [{"task_id": "a"}]}, ["errors: missing one of a"]),
        ({"executions": []}, ["executions: not expected a {} succeeded"]),
        (
            {"executions": [{"task": "a", "item": 0, "input": {"n": 1}, "status": "failed"}] * 2},
            [
                'executions: missing a[0] {"n":1} failed (2 times)',
                "executions: not expected a {} succeeded",
            ],
        ),
        ({"inspection_errors": ["x"]}, ["expected the definition to be refused, but it ran"]),
    ],
)
def test_differences(change: dict[str, Any], expected: list[str]) -> None:
    assert found({**PASSING, **change}) == expected


def test_refused_definition() -> None:
    assert found({"inspection_errors": []}, action="x y") == []
    (line,) = found(PASSING, action="x y")
    assert line.startswith("the definition was refused: tasks.a.action")


def test_many_differences_are_cut() -> None:
    executions = [{"task": f"t{i}", "status": "failed"} for i in range(9)]
    lines = found({"executions": executions})
    assert len([line for line in lines if line.startswith("executions: missing t")]) == 5
    assert "executions: missing 4 more kinds" in lines
