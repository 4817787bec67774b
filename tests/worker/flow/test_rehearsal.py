"""Rehearsals: what answers, what time does, what a report says. Recorded runs: test_golden.py."""

from typing import Any

import pytest

from pronghorn.worker.flow.rehearsal import CaseError, read_case, rehearse

WORKFLOW = """
input: [n]
tasks:
  a: {action: x, input: {n: "{{ n }}"}, retry: {count: 1, delay: 600}, next: [{publish: [{a: "{{ result() }}"}], do: i}]}
  i: {with: "{{ [7, 8] }}", delay: 60, action: y, input: {v: "{{ item() }}"}, next: [{publish: [{i: "{{ result() }}"}]}]}
output: [{a: "{{ a }}"}, {i: "{{ i }}"}]
"""  # noqa: E501


def case(**fields: Any) -> dict[str, Any]:
    return {"workflow": WORKFLOW, "inputs": {"n": 5}, **fields}


def test_mocks_answer_by_task_start_and_item() -> None:
    rehearsed = rehearse(
        case(
            mocks=[
                {"task": "a", "occurrence": 0, "status": "failed", "result": "no"},
                {"task": "a", "occurrence": 1, "result": "yes"},
                {"task": "i", "item": 1, "result": 80},
            ],
            default_mock={"result": "other"},
        )
    )
    assert rehearsed.status == "succeeded"
    assert rehearsed.output == {"a": "yes", "i": ["other", 80]}
    assert [(each.task, each.item, each.input, each.status) for each in rehearsed.executions] == [
        ("a", None, {"n": 5}, "failed"),
        ("a", None, {"n": 5}, "succeeded"),
        ("i", 0, {"v": 7}, "succeeded"),
        ("i", 1, {"v": 8}, "succeeded"),
    ]


def test_report_has_the_form_of_what_is_expected() -> None:
    mocks = [{"task": "a", "occurrence": n, "status": "failed", "result": n} for n in (0, 1)]
    report = rehearse(case(mocks=mocks, default_mock={"status": "timeout"})).report()
    assert set(report) == {"status", "output", "executions", "errors"}
    assert report["executions"][0] == {
        "task": "a", "item": None, "input": {"n": 5}, "status": "failed",
    }  # fmt: skip
    assert report["errors"][0] == {
        "type": "task", "message": "it failed", "task_id": "a", "result": 0,
    }  # fmt: skip
    assert [each.get("task_id") for each in report["errors"]] == ["a", "a", None, None]
    assert report["errors"][2]["message"] == "i: it ended as timeout"


def test_refused_definition_is_not_run() -> None:
    rehearsed = rehearse({"workflow": {"tasks": {"a": {"next": [{"do": "b"}]}}}})
    assert rehearsed.status == "refused"
    assert rehearsed.report() == {
        "inspection_errors": ["tasks.a.next[0].do: there is no task named 'b'"]
    }


def test_tasks_end_in_order_or_in_reverse() -> None:
    fork = "tasks: {a: {action: x, next: [{do: c}]}, b: {action: x, next: [{do: d}]}, c: {action: x}, d: {action: x}}"  # noqa: E501
    played = {
        order: [each.task for each in rehearse({"workflow": fork}, order).executions]  # type: ignore[arg-type]
        for order in ("fifo", "lifo")
    }
    assert played == {"fifo": ["a", "b", "c", "d"], "lifo": ["a", "b", "d", "c"]}


def test_waiting_task_is_answered_by_a_mock() -> None:
    workflow = """
tasks: {w: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}}
output: [{v: "{{ v }}"}]
"""
    rehearsed = rehearse({"workflow": workflow, "mocks": [{"task": "w", "result": 3}]})
    assert rehearsed.output == {"v": 3}


def test_null_is_as_good_as_nothing() -> None:
    nothing = dict.fromkeys(("inputs", "context", "mocks", "default_mock", "expected"))
    assert rehearse({"workflow": "tasks: {a: }", **nothing}).status == "succeeded"


def test_context_of_the_caller_is_there() -> None:
    workflow = {"tasks": {"a": {"action": "x", "input": {"w": "{{ who }}"}}}}
    played = rehearse({"workflow": workflow, "context": {"who": "me"}}).executions
    assert played[0].input == {"w": "me"}


@pytest.mark.parametrize(
    "source",
    [b"", b"[]", b"\xff", "{}", '{"workflow": 3}', '{"workflow": {}, "mocks": [{}]}', "[" * 9999],
)
def test_what_is_no_case_is_refused(source: str | bytes) -> None:
    with pytest.raises(CaseError, match="not a case"):
        read_case(source)


def test_items_that_a_node_gives_are_the_result_of_the_task_s_own_mock() -> None:
    workflow = {
        "tasks": {
            "t": {
                "with": {"items": {"action": "rows"}, "concurrency": 1},
                "action": "x",
                "input": {"v": "{{ item() }}"},
            }
        }
    }
    mocks = [{"task": "t", "result": [5, 6]}, {"task": "t", "item": 1, "status": "failed"}]
    rehearsed = rehearse({"workflow": workflow, "mocks": mocks})
    assert [(each.input, each.status) for each in rehearsed.executions] == [
        ({"v": 5}, "succeeded"),
        ({"v": 6}, "failed"),
    ]
    failed = rehearse({"workflow": workflow, "mocks": [{"task": "t", "status": "failed"}]})
    assert (failed.status, failed.executions) == ("failed", ())
