"""How tasks start, wait, are run again, and end: delays, retries, timeouts, items."""

from typing import Any

import pytest
from flow_runs import Play

from pronghorn.worker.flow import tasks
from pronghorn.worker.flow.events import (
    Cancel,
    Ended,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    Pause,
    PullItems,
    Rerun,
    Resume,
    RunItems,
    RunTask,
    Signal,
    Stop,
    TakeUp,
    TaskEnded,
    Tick,
    WaitFor,
)


def test_tasks_that_start_together_are_rendered_together() -> None:
    play = Play("""
input: [{x: 1}]
tasks:
  a: {action: a, input: {v: "{{ x }}"}}
  b: {action: a, input: {v: "{{ x.y }}"}}
  c: {action: "{{ x }}", next: [{do: d}]}
  d: {action: a}
""")
    assert play.started() == []
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert play.errors == [("expression", "b", "input.v"), ("expression", "c", "action")]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ("delay: '{{ s }}'", "delay"),
        ("timeout: '{{ s }}'", "timeout"),
        ("input: '{{ s }}'", "input"),
        ("with: '{{ s }}'", "with.items"),
        ("with: {items: '{{ l }}', concurrency: '{{ s }}'}", "with.concurrency"),
        ("with: {items: '{{ l }}', concurrency: '{{ 0 }}'}", "with.concurrency"),
        ("with: {items: '{{ l }}', batch_size: '{{ s }}'}", "with.batch_size"),
        ("with: 'x, y in {{ l }}'", "with.items"),
        ("with: '{{ l }}'\n    input: {y: \"{{ item('y') }}\"}", "input.y"),
        ("with: 'x in {{ l }}'\n    input: {y: \"{{ item('y') }}\"}", "input.y"),
        ("retry: {count: '{{ s }}'}", "retry.count"),
        ("retry: {count: 1, delay: '{{ s }}'}", "retry.delay"),
        ("input: {r: '{{ result() }}'}", "input.r"),
        ("input: {r: '{{ item() }}'}", "input.r"),
        ("input: {r: '{{ succeeded() }}'}", "input.r"),
    ],
)
def test_field_without_a_usable_value_fails_the_run_and_is_named(fields: str, field: str) -> None:
    play = Play(f"vars: [{{s: text}}, {{l: [1]}}]\ntasks:\n  t:\n    action: a\n    {fields}\n")
    assert play.started() == []
    assert play.errors == [("expression", "t", field)]


def test_action_and_input_may_be_expressions() -> None:
    play = Play(
        "input: [act, given]\ntasks: {t: {action: '{{ act }}', input: '{{ given }}'}}",
        act="shop.sell",
        given={"n": 1},
    )
    assert play.last[-1] == RunTask(1, "t", "shop.sell", {"n": 1}, 0, None)


def test_delay_is_waited_for() -> None:
    play = Play("tasks: {t: {action: a, delay: 2.5}}")
    assert (play.started(), play.conductor.deadline()) == ([], 2.5)
    play.now = 2.4
    assert play.tell(Tick()).started() == []
    play.now = 2.5
    assert play.tell(Tick()).started() == ["t"]
    assert play.conductor.deadline() is None


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        ("{count: 3, delay: 2}", [2, 2, 2]),
        ("{count: 3, delay: 2, backoff: linear}", [2, 4, 6]),
        ("{count: 4, delay: 2, backoff: exponential, max_delay: 10}", [2, 4, 8, 10]),
        ("{count: 2}", [0, 0]),
        ("{count: 0}", []),
        ("{count: 3, when: '{{ result() < 2 }}'}", [0, 0]),
    ],
)
def test_retry(retry: str, delays: list[float]) -> None:
    play = Play(f"tasks: {{t: {{action: a, retry: {retry}}}}}")
    for number, delay in enumerate(delays):
        play.fail("t", number)
        assert play.commands(TaskEnded)[0].again
        if delay:
            assert play.conductor.deadline() == play.now + delay
            play.now += delay
            play.tell(Tick())
        assert play.commands(RunTask)[0].attempt == number + 1
    play.fail("t", len(delays))
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_retry_may_be_wanted_after_success() -> None:
    play = Play("tasks: {t: {action: a, retry: {count: 9, when: '{{ result() != 1 }}'}}}")
    play.end("t", 0).end("t", 0).end("t", 1)
    assert play.ended is not None
    assert play.ended.status == "succeeded"


def test_command_retry_runs_three_times_more_and_does_not_handle_the_failure() -> None:
    play = Play("tasks: {t: {action: a, next: [{when: '{{ failed() }}', do: retry}]}}")
    for _ in range(3):
        assert play.fail("t").started() == ["t"]
    play.fail("t")
    assert play.ended is not None
    assert play.ended.status == "failed"


def test_failed_condition_of_a_retry_fails_the_run() -> None:
    play = Play("tasks: {t: {action: a, retry: {count: 1, when: '{{ result().x }}'}}}")
    play.end("t", {})
    assert play.errors == [("expression", "t", "retry.when")]


def test_timeout_ends_a_task_and_a_late_answer_is_ignored() -> None:
    play = Play("""
tasks:
  t: {action: a, timeout: 5, next: [{when: "{{ timed_out() }}", do: u}]}
  u: {action: a}
""")
    execution = play.execution("t")
    play.now = 5.0
    play.tell(Tick())
    assert Stop(execution) in play.last
    assert play.started() == ["u"]
    assert play.tell(Ended(execution, "succeeded", 1)).last == []


def test_timeout_counts_from_the_end_of_the_delay_and_for_each_attempt() -> None:
    play = Play("tasks: {t: {action: a, delay: 3, timeout: 5, retry: {count: 1}}}")
    play.now = 3.0
    play.tell(Tick())
    assert play.conductor.deadline() == 8.0
    play.now = 8.0
    play.tell(Tick())
    assert (play.started(), play.conductor.deadline()) == (["t"], 13.0)


def test_starts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STARTS_MAX", 10)
    play = Play("tasks: {a: {next: [{do: b}]}, b: {action: a, next: [{do: b}]}}")
    play.end("a")
    while play.ended is None:
        play.end("b")
    assert play.conductor.state.starts == 11
    assert [each.message for each in play.ended.errors] == [
        "more than 10 task starts: a cycle without end?"
    ]


ITEMS = """
input: [xs, {{concurrency: 2}}]
tasks:
  t:
    with: {{items: "x in {{{{ xs }}}}", concurrency: "{{{{ concurrency }}}}", {more}}}
    action: a
    input: {{x: "{{{{ item('x') }}}}", i: "{{{{ index }}}}", whole: "{{{{ item() }}}}"}}
    next: [{{publish: [{{rs: "{{{{ result() }}}}"}}]}}]
output: [{{rs: "{{{{ rs }}}}"}}]
"""


def items(more: str = "", **inputs: Any) -> Play:
    return Play(ITEMS.format(more=more), **inputs)


def test_items_run_in_bounds_and_give_a_list_in_their_order() -> None:
    play = items(xs=["a", "b", "c"])
    assert play.started() == ["t[0, 1]"]
    assert play.inputs()[1] == {"x": "b", "i": 1, "whole": {"x": "b"}}
    assert play.commands(RunItems)[0].count == 3
    play.end_items("t", (1, "succeeded", "B"))
    assert play.started() == ["t[2]"]
    play.end_items("t", (2, "succeeded", "C"), (0, "succeeded", "A"))
    assert play.output == {"rs": ["A", "B", "C"]}


def test_empty_list_succeeds_at_once() -> None:
    assert items(xs=[]).output == {"rs": []}


def test_failed_item_lets_the_others_run_then_fails_the_task() -> None:
    play = items(xs=[1, 2, 3])
    play.end_items("t", (0, "failed", "no"))
    assert play.started() == ["t[2]"]
    play.end_items("t", (1, "succeeded", 2), (2, "succeeded", 3))
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert play.output == {"rs": ["no", 2, 3]}
    assert [(each.task, each.item) for each in play.ended.errors] == [("t", 0)]


def test_failed_item_stops_the_rest_where_that_is_wanted() -> None:
    play = items("on_item_error: stop", xs=[1, 2, 3])
    play.end_items("t", (0, "failed", "no"))
    assert play.started() == []
    play.end_items("t", (1, "succeeded", 2))
    assert play.output == {"rs": ["no", 2, None]}


def test_retry_runs_all_items_again() -> None:
    play = Play("""
tasks:
  t:
    with: "{{ [1, 2] }}"
    action: a
    retry: {count: 1}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""")
    play.end_items("t", (0, "succeeded", 1), (1, "failed", 2))
    assert play.started() == ["t[0, 1]"]
    play.end_items("t", (0, "succeeded", 3), (1, "succeeded", 4))
    assert play.output == {"r": [3, 4]}


def test_late_and_unknown_items_are_ignored() -> None:
    play = items(xs=[1, 2, 3])
    first = play.execution("t")
    play.end_items("t", (0, "succeeded", 1), (0, "failed", 2), (7, "failed", 3), (2, "failed", 4))
    assert play.errors == []
    assert play.tell(ItemsEnded(first + 99, [ItemEnded(0, "failed")])).last == []
    assert play.tell(Ended(first, "failed")).last == [], "it has items, they have to end"


def test_canceled_item_cancels_task_and_run() -> None:
    play = items(xs=[1, 2, 3])
    play.end_items("t", (0, "canceled", None))
    assert (play.started(), play.status) == ([], "canceling")
    play.end_items("t", (1, "succeeded", 2))
    assert play.ended is not None
    assert play.ended.status == "canceled"


def test_items_of_zip_have_names() -> None:
    play = Play("""
vars: [{a: [1, 2]}, {b: [x, y]}]
tasks:
  t: {with: "n, m in {{ zip(a, b) }}", action: "do.{{ item('m') }}", input: {n: "{{ item('n') }}"}}
""")
    assert [(each.action, each.input) for each in play.commands(RunItems)[0].items] == [
        ("do.x", {"n": 1}),
        ("do.y", {"n": 2}),
    ]


FED = """
vars: [{n: 7}]
tasks:
  t:
    with: {items: {action: rows, input: {of: "{{ n }}"}}, as: x, concurrency: 2}
    action: a
    input: {x: "{{ item('x').v }}", i: "{{ index }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ ctx().get('r') }}"}]
"""


def test_items_come_from_a_node_as_they_are_asked_for() -> None:
    play = Play(FED)
    (pull,) = play.commands(PullItems)
    assert (pull.action, pull.input, pull.count, pull.skip) == ("rows", {"of": 7}, 2, 0)
    play.tell(ItemsGiven(pull.execution, [{"v": 10}], is_last=False))
    assert (play.started(), play.inputs()) == (["t[0]"], [{"x": 10, "i": 0}])
    play.tell(ItemsGiven(pull.execution, [{"v": 11}], is_last=False))
    assert play.started() == ["t[1]"]
    assert [(each.count, each.skip) for each in play.commands(PullItems)] == [(1, 2)]
    play.tell(ItemsGiven(pull.execution, [{"v": 12}, {"v": 13}], is_last=False))
    assert (play.started(), play.commands(PullItems)) == ([], [])
    play.end_items("t", (0, "succeeded", "a"))
    assert play.started() == ["t[2]"]
    play.end_items("t", (1, "succeeded", "b"), (2, "succeeded", "c"))
    play.tell(ItemsGiven(pull.execution, [], is_last=True))
    assert play.ended is None
    play.end_items("t", (3, "succeeded", "d"))
    assert play.output == {"r": ["a", "b", "c", "d"]}
    assert play.commands(Stop) == []


def test_a_node_that_gives_no_items() -> None:
    play = Play(FED)
    play.tell(ItemsGiven(play.commands(PullItems)[0].execution, [], is_last=True))
    assert play.output == {"r": []}


def test_a_node_that_fails_lets_its_items_end_and_fails_the_task() -> None:
    play = Play(FED)
    execution = play.commands(PullItems)[0].execution
    play.tell(ItemsGiven(execution, [{"v": 1}], is_last=False))
    play.tell(ItemsGiven(execution, [], is_last=True, status="failed", message="broken"))
    assert play.ended is None
    play.end_items("t", (0, "succeeded", "a"))
    assert play.ended is not None
    assert (play.ended.status, play.output) == ("failed", {"r": ["a"]})
    assert [each.message for each in play.ended.errors] == ["broken"]
    play.tell(Rerun())
    (pull,) = play.commands(PullItems)
    assert (pull.skip, pull.count) == (1, 2)


def test_an_item_without_a_value_stops_the_node_and_fails_the_run() -> None:
    play = Play(FED)
    execution = play.commands(PullItems)[0].execution
    play.tell(ItemsGiven(execution, [{"v": 1}], is_last=False))
    play.tell(ItemsGiven(execution, [{"w": 1}], is_last=False))
    assert play.commands(Stop) == [Stop(execution)]
    play.end_items("t", (0, "succeeded", "a"))
    assert play.ended is not None
    assert play.ended.status == "failed"
    assert play.errors[0] == ("expression", "t", "input.x")


@pytest.mark.parametrize("running", [0, 1])
def test_a_cancelled_run_stops_the_node_that_gives_items(running: int) -> None:
    play = Play(FED)
    execution = play.commands(PullItems)[0].execution
    play.tell(ItemsGiven(execution, [{"v": 1}] * running, is_last=False))
    play.tell(Cancel())
    if running:
        assert (play.commands(Stop), play.ended) == ([], None)
        play.end_items("t", (0, "succeeded", "a"))
    assert play.commands(Stop) == [Stop(execution)]
    assert play.ended is not None
    assert play.ended.status == "canceled"


def test_nothing_is_asked_for_while_the_run_is_paused() -> None:
    play = Play(FED)
    execution = play.commands(PullItems)[0].execution
    play.tell(Pause())
    assert play.status == "paused"
    play.tell(ItemsGiven(execution, [{"v": 1}, {"v": 2}], is_last=False))
    assert (play.started(), play.commands(PullItems)) == ([], [])
    play.tell(Resume())
    assert play.started() == ["t[0, 1]"]
    assert [each.count for each in play.commands(PullItems)] == [2]


def test_who_takes_a_run_up_begins_the_node_again_behind_what_it_has_given() -> None:
    play = Play(FED)
    execution = play.commands(PullItems)[0].execution
    play.tell(TakeUp())
    assert [(each.count, each.skip) for each in play.commands(PullItems)] == [(2, 0)]
    play.tell(ItemsGiven(execution, [{"v": 1}], is_last=False))
    play.tell(TakeUp())
    assert play.started() == ["t[0]"]
    assert [(each.count, each.skip) for each in play.commands(PullItems)] == [(2, 1)]


def test_one_bad_item_starts_none() -> None:
    play = Play("""
vars: [{xs: [{k: 1}, {}]}]
tasks: {t: {with: "{{ xs }}", action: a, input: {k: "{{ item().k }}"}}}
""")
    assert play.started() == []
    assert play.errors == [("expression", "t", "input.k")]


def test_items_that_wait_are_not_started_once_the_run_has_failed() -> None:
    play = Play("""
tasks:
  f: {action: a}
  t: {with: {items: "{{ [1, 2] }}", concurrency: 1}, action: a}
""")
    play.fail("f")
    play.end_items("t", (0, "succeeded", 1))
    assert play.started() == []
    assert play.ended is not None


def test_timeout_of_items_stops_them_and_keeps_what_there_is() -> None:
    play = Play("""
tasks:
  t:
    with: "{{ [1, 2] }}"
    action: a
    timeout: 1
    next: [{publish: [{r: "{{ result() }}"}], do: noop}]
output: [{r: "{{ r }}"}]
""")
    play.end_items("t", (1, "succeeded", 5))
    play.now = 1.0
    play.tell(Tick())
    assert play.output == {"r": [None, 5]}


WAIT = """
tasks:
  w:
    action: core.wait
    input: {event: go}
    timeout: 9
    next: [{publish: [{v: "{{ result() }}"}], do: noop}]
output: [{v: "{{ v }}"}]
"""


def test_waiting_task_ends_with_the_value_of_its_signal() -> None:
    play = Play(WAIT)
    assert play.last[-1] == WaitFor(1, "w", "go")
    assert play.tell(Signal("other", 1)).last == []
    assert play.tell(Signal("go", 7)).output == {"v": 7}


def test_signal_that_comes_early_is_kept() -> None:
    play = Play("""
tasks:
  a: {action: a, next: [{do: w}]}
  w: {action: core.wait, input: {event: go}}
""")
    play.tell(Signal("go", 1))
    play.end("a")
    assert play.ended is not None
    assert play.ended.status == "succeeded"


def test_waiting_task_times_out() -> None:
    play = Play(WAIT)
    play.now = 9.0
    play.tell(Tick())
    assert play.output == {"v": None}
    assert play.commands(Stop) == []


def test_waiting_task_ends_with_a_cancelled_run() -> None:
    play = Play(WAIT)
    play.tell(Cancel())
    assert play.ended is not None
    assert play.ended.status == "canceled"


@pytest.mark.parametrize("given", ["{}", "{event: 1}"])
def test_waiting_needs_the_name_of_an_event(given: str) -> None:
    play = Play(f"tasks: {{w: {{action: core.wait, input: {given}}}}}")
    assert play.errors == [("expression", "w", "input.event")]
