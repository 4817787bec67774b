"""Runs in one process: nodes, workflows as nodes, what runs side by side, events, control."""

import asyncio
from typing import Any

import flow_nodes
import pytest
from flow_nodes import TABLE

from pronghorn.broker.wire.flows import ContextSize, FlowEvent, RunReport
from pronghorn.worker.flow.events import Cancel, Pause, Resume, Signal
from pronghorn.worker.flow.live import LiveRun
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.validation import validate

INNER = validate("""
input: [n]
tasks:
  t: {action: add, input: {a: "{{ n }}"}, next: [{when: "{{ succeeded() }}", publish: [{r: "{{ result() }}"}]}]}
output: [{r: "{{ r }}"}]
""")  # noqa: E501


def run(definition: str, /, **inputs: Any) -> RunReport:
    return FlowRuntime(TABLE, {"inner": INNER}).run(validate(definition), inputs)


def test_values_go_from_node_to_node() -> None:
    ended = run("""
input: [n]
tasks:
  a: {action: add, input: {a: "{{ n }}", b: 2}, next: [{publish: [{x: "{{ result() }}"}], do: [b]}]}
  b:
    with: {items: "i in {{ range(x) }}", concurrency: 2}
    action: nodes.add
    input: {a: "{{ item('i') }}"}
    next: [{publish: [{ys: "{{ result() }}"}]}]
output: [{ys: "{{ ys }}"}]
""", n=3)  # fmt: skip
    size = ContextSize(bytes=28, growth=18, largest="n", largest_bytes=10)
    assert ended == RunReport("succeeded", {"ys": [1, 2, 3, 4, 5]}, (), context=size)


def test_builtin_actions() -> None:
    ended = run("""
tasks:
  a: {action: core.noop, input: {whatever: 1}, next: [{do: b}]}
  b: {action: core.echo, input: {message: hi}, next: [{publish: [{b: "{{ result() }}"}], do: c}]}
  c: {action: core.sleep, input: {seconds: 0.001}, next: [{do: d}]}
  d: {action: core.fail, input: {message: on purpose}}
output: [{b: "{{ b }}"}]
""")
    assert (ended.status, ended.output) == ("failed", {"b": "hi"})
    assert [(each.task, each.message) for each in ended.errors] == [("d", "on purpose")]


def test_failure_of_a_node_can_be_looked_at() -> None:
    ended = run("""
tasks:
  t:
    action: wrong
    input: {message: oh}
    next: [{when: "{{ failed() }}", publish: [{e: "{{ result().exception ~ ': ' ~ result().message }}"}], do: noop}]
output: [{e: "{{ e }}"}]
""")  # noqa: E501
    assert ended.output == {"e": "ValueError: oh"}


def test_unknown_action_fails_its_task_and_says_what_there_is() -> None:
    ended = run('tasks: {t: {action: \'{{ "ad" ~ "dd" }}\'}}')
    assert ended.status == "failed"
    assert "addd" in ended.errors[0].message


def test_node_reaches_no_value_of_others() -> None:
    ended = run("""
vars: [{l: [1]}]
tasks:
  a: {action: spoil, input: {value: "{{ l }}"}, next: [{do: b}]}
  b: {with: "{{ [0, 0] }}", action: spoil, input: {value: "{{ l }}"}}
output: [{l: "{{ l }}"}]
""")
    assert ended.output == {"l": [1]}


def test_async_nodes_and_items_run_side_by_side() -> None:
    flow_nodes.most_running = 0
    run("""
tasks:
  a: {action: meet}
  b: {action: meet}
  c: {with: {items: "{{ range(6) }}", concurrency: 3}, action: meet}
""")
    assert flow_nodes.most_running == 5


def test_items_may_have_actions_of_their_own() -> None:
    ended = run("""
vars: [{what: [add, add, core.noop, meet, missing, add]}]
tasks:
  t:
    with: "{{ what }}"
    action: "{{ item() }}"
    input: {a: "{{ index }}"}
    next: [{publish: [{r: "{{ result() }}"}], do: noop}]
output: [{r: "{{ r }}"}]
""")
    assert ended.output is not None
    results = ended.output["r"]
    assert (results[0], results[1], results[2], results[5]) == (1, 2, None, 6)
    assert [each.item for each in ended.errors] == [4, 3], "meet takes no parameter"


def test_threads_and_contexts() -> None:
    ended = run("""
tasks:
  a: {action: in_thread, input: {n: 4}, next: [{publish: [{a: "{{ result() }}"}]}]}
  b: {action: who, next: [{publish: [{b: "{{ result() }}"}]}]}
output: [{a: "{{ a }}"}, {b: "{{ b }}"}]
""")
    assert ended.output == {"a": 4, "b": "nodes.who"}


def test_workflow_is_called_like_a_node() -> None:
    ended = run("""
tasks:
  t: {action: inner, input: {n: 1}, next: [{publish: [{r: "{{ result().r }}"}]}]}
  u: {action: inner, input: {n: text}, next: [{when: "{{ failed() }}", publish: [{e: "{{ result().errors[0].task }}"}], do: noop}]}
output: [{r: "{{ r }}"}, {e: "{{ e }}"}]
""")  # noqa: E501
    assert (ended.status, ended.output) == ("succeeded", {"r": 2, "e": "t"})


def test_workflows_within_each_other_without_end_fail() -> None:
    endless = validate("tasks: {t: {action: endless}}")
    ended = FlowRuntime(TABLE, {"endless": endless}).run(endless)
    assert ended.status == "failed"
    assert "100 deep" in ended.errors[0].message


def test_retry_and_timeout_take_time() -> None:
    ended = run("""
tasks:
  a: {action: wrong, retry: {count: 2, delay: 0.005}, next: [{do: b}]}
  b: {action: never, timeout: 0.01, next: [{when: "{{ timed_out() }}", do: noop}]}
""")
    assert ended.status == "succeeded"
    assert [each.kind for each in ended.errors] == ["task", "task", "task", "timeout"]


def test_events_come_in_order_without_a_gap() -> None:
    told: list[FlowEvent] = []
    FlowRuntime(TABLE).run(
        validate("""
tasks:
  a: {action: add, input: {a: 1}, next: [{do: b}]}
  b: {with: "{{ [1, 2] }}", action: add, input: {a: "{{ item() }}"}}
output: [{x: 1}]
"""),
        on_event=told.append,
    )
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    assert [(event.kind, event.task, event.status, event.done) for event in told] == [
        ("status", None, "running", 0),
        ("task_started", "a", None, 0),
        ("task_ended", "a", "succeeded", 0),
        ("task_started", "b", None, 0),
        ("items", "b", None, 2),
        ("task_ended", "b", "succeeded", 0),
        ("status", None, "succeeded", 0),
        ("ended", None, "succeeded", 0),
    ]
    assert told[-1].output == {"x": 1}


async def started(definition: str) -> tuple[LiveRun, asyncio.Task[RunReport]]:
    made = FlowRuntime(TABLE).start(validate(definition))
    task = asyncio.ensure_future(made.run())
    await asyncio.sleep(0)
    return made, task


async def test_pause_resume_and_signal() -> None:
    made, task = await started("""
tasks:
  w: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}], do: a}]}
  a: {action: add, input: {a: "{{ v }}"}, next: [{publish: [{v: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}]
""")
    made.tell(Pause())
    made.tell(Signal("go", 5))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    made.tell(Resume())
    assert (await task).output == {"v": 6}


@pytest.mark.parametrize("definition", [
    "tasks: {n: {action: never}}",
    "tasks: {n: {with: '{{ range(3) }}', action: never}}",
])  # fmt: skip
async def test_cancel_stops_what_runs(definition: str) -> None:
    made, task = await started(definition)
    made.tell(Cancel(stop_running=True))
    assert (await task).status == "canceled"


def test_node_that_raises_a_cancel_has_failed() -> None:
    ended = run("tasks: {t: {action: cancels_itself}}")
    assert (ended.status, [each.kind for each in ended.errors]) == ("failed", ["task"])


async def test_cancelling_who_waits_cancels_what_runs() -> None:
    _, task = await started("tasks: {n: {action: never}}")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.slow
async def test_plain_nodes_let_others_have_their_turn() -> None:
    made = FlowRuntime(TABLE).start(
        validate("tasks: {t: {with: '{{ range(20000) }}', action: add, input: {a: 1}}}")
    )
    task = asyncio.ensure_future(made.run())
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert (await task).status == "succeeded"
