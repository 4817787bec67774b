"""Mirror of worker/flow/inner.py: workflows within a recorded run go on from where they were."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from kept_attempts import KeptAttempt, Told

from pronghorn.broker.wire.flows import RunFailure, RunReport
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.events import (
    Cancel,
    Ended,
    ItemsEnded,
    Pause,
    Resume,
    Signal,
    Start,
    TakeSignal,
    TakeUp,
)
from pronghorn.worker.flow.history import Begun, Moment, Place, Within, read
from pronghorn.worker.flow.inner import outcome_of
from pronghorn.worker.flow.live import LiveRun
from pronghorn.worker.flow.recording import take_up
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.validation import validate

PATIENCE_S = 5
begun: Counter[str] = Counter()
fails: set[str] = set()
holds: dict[str, asyncio.Event] = {}


@node
def step(name: str, at: str = "") -> str:
    begun[name] += 1
    if name in fails:
        raise ValueError(f"{name} fails")
    return name


@node
async def later(name: str) -> str:
    begun[name] += 1
    if name in holds:
        await holds[name].wait()
    return name


@node(at_most_once=True)
async def once(name: str) -> str:
    return await later(name)


@node
def letters(count: int) -> list[str]:
    return list("abcdefgh"[:count])


TABLE = DispatchTable.of(
    {f"n.{each.__name__}": each for each in (step, later, once, letters)}  # type: ignore[attr-defined]
)

FLOWS = {
    "leaf": """
input: [at]
tasks:
  x: {action: step, input: {name: "{{ at }}/x"}, next: [{do: y}]}
  y: {action: later, input: {name: "{{ at }}/y"}, next: [{do: z}]}
  z:
    delay: 0.001
    action: step
    input: {name: "{{ at }}/z"}
    next: [{publish: [{z: "{{ result() }}"}]}]
output: [{z: "{{ z }}"}]
""",
    "items": """
input: [at]
tasks:
  t:
    with: {items: {action: letters, input: {count: 5}}, as: l, concurrency: 2}
    action: later
    input: {name: "{{ at }}/{{ item('l') }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""",
    "middle": """
input: [at]
tasks:
  i: {action: leaf, input: {at: "{{ at }}/i"}, next: [{do: k}]}
  k:
    with: {items: "n in {{ range(3) }}", concurrency: 2}
    action: leaf
    input: {at: "{{ at }}/k{{ item('n') }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""",
}  # fmt: skip
OUTER = """
tasks:
  a: {action: step, input: {name: a}, next: [{do: [b, c, d]}]}
  b: {action: middle, input: {at: b}, next: [{publish: [{b: "{{ result().r }}"}]}]}
  c: {action: items, input: {at: c}, next: [{publish: [{c: "{{ result().r }}"}]}]}
  d: {with: "{{ ['leaf', 'step'] }}", action: "{{ item() }}", input: {at: d, name: d}}
output: [{b: "{{ b }}"}, {c: "{{ c }}"}]
"""
NAMES = {
    "a", "d",
    *(f"{at}/{task}" for at in ("b/i", "b/k0", "b/k1", "b/k2", "d") for task in "xyz"),
    *(f"c/{letter}" for letter in "abcde"),
}  # fmt: skip
OUTPUT = {"b": [{"z": f"b/k{n}/z"} for n in range(3)], "c": [f"c/{letter}" for letter in "abcde"]}


@pytest.fixture(autouse=True)
def _anew() -> None:
    begun.clear()
    fails.clear()
    holds.clear()


async def started(
    attempt: KeptAttempt, definition: str, flows: dict[str, str] | None = None
) -> tuple[LiveRun, "asyncio.Task[RunReport]"]:
    """Begin an attempt as a run host does."""
    recording = await take_up(attempt)
    workflow = recording.workflow or validate(definition)
    if recording.workflow is None:
        recording.define(workflow)
    served = {name: validate(each) for name, each in (FLOWS if flows is None else flows).items()}
    run = FlowRuntime(TABLE, served).start(workflow, run_id="r", recording=recording)
    return run, asyncio.ensure_future(run.run())


async def ended(
    attempt: KeptAttempt, definition: str = OUTER, flows: dict[str, str] | None = None
) -> RunReport:
    _, running = await started(attempt, definition, flows)
    return await asyncio.wait_for(running, PATIENCE_S)


async def until(name: str, told: Sequence[Told] | None = None) -> None:
    """Wait until a node has begun, or is recorded as done."""
    for _ in range(PATIENCE_S * 1000):
        if name in (begun if told is None else done(told)):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{name} does not come")


async def lost(running: "asyncio.Task[RunReport]", attempt: KeptAttempt) -> KeptAttempt:
    """Have the host lost, with what was recorded until now, and give the next attempt."""
    next_attempt = KeptAttempt(list(attempt.told))
    running.cancel()
    await asyncio.wait([running])
    return next_attempt


def moments(told: Sequence[Told]) -> list[Moment]:
    return [
        moment
        for each in told
        if bytes(each.value) != b"\xc0"
        for moment in read(each.value, each.buffers)
    ]


def done(told: Sequence[Told]) -> set[str]:
    """Give the names of nodes that are recorded as done."""
    names: list[Any] = []
    for moment in moments(told):
        match _inmost(moment.what):
            case Ended(status="succeeded", result=result):
                names.append(result)
            case ItemsEnded(items=items):
                names += [each.result for each in items if each.status == "succeeded"]
    return {name for name in names if isinstance(name, str)}


def _inmost(what: Any) -> Any:
    return what.what if isinstance(what, Within) else what


def within(told: Sequence[Told], kind: type[Any]) -> list[tuple[Place, ...]]:
    """Give the paths of the workflows that were told something of a kind."""
    return [
        each.what.path
        for each in moments(told)
        if isinstance(each.what, Within) and isinstance(each.what.what, kind)
    ]


async def test_a_run_that_is_lost_anywhere_goes_on_and_repeats_nothing() -> None:
    whole = KeptAttempt()
    assert (await ended(whole)).output == OUTPUT
    assert begun == dict.fromkeys(NAMES, 1)
    assert done(whole.told) == NAMES
    for count in range(len(whole.told)):
        begun.clear()
        attempt = KeptAttempt(whole.told[:count])
        report = await ended(attempt)
        assert (report.status, report.output) == ("succeeded", OUTPUT), count
        assert not begun.keys() & done(whole.told[:count]), count
        assert set(begun.values()) <= {1}
        assert done(attempt.told) == NAMES
        tasks = Counter(task for each in attempt.told for task, _ in each.tasks)
        assert set(tasks.values()) == {1}, "each task is told once as ended"
        again = KeptAttempt(attempt.told)
        begun.clear()
        assert (await ended(again)).output == OUTPUT
        assert not begun


async def test_tasks_within_are_told_with_their_way() -> None:
    attempt = KeptAttempt()
    await ended(attempt)
    told = {task for each in attempt.told for task, _ in each.tasks}
    assert {"a", "b", "b/i", "b/i/x", "b/k", "b/k[2]/z", "c/t", "d[0]/y"} <= told


async def test_a_definition_is_written_once_and_holds_after_a_reload() -> None:
    holds["b/k1/y"] = asyncio.Event()
    attempt = KeptAttempt()
    _, running = await started(attempt, OUTER)
    await until("b/k1/y")
    attempt = await lost(running, attempt)
    holds.clear()
    other = "tasks: {o: {action: step, input: {name: other}}}"
    report = await ended(attempt, OUTER, {"leaf": other, "middle": other, "items": other})
    assert report.output is not None
    assert report.output["c"] == OUTPUT["c"]
    assert {"z": "b/k1/z"} in report.output["b"]
    assert sum(bytes(each.value).count(b"later") for each in attempt.told) == 2, "leaf and items"
    assert within(attempt.told, Start)[0] == ((2, None),)


async def test_an_action_that_is_a_node_now_is_still_the_workflow_that_had_begun() -> None:
    outer = "tasks: {t: {with: '{{ [1] }}', action: leaf, input: {at: t}}, u: {action: leaf, input: {at: u}}}"  # noqa: E501
    holds["t/y"] = holds["u/y"] = asyncio.Event()
    attempt = KeptAttempt()
    _, running = await started(attempt, outer)
    await until("t/y")
    await until("u/y")
    attempt = await lost(running, attempt)
    holds.clear()
    assert (await ended(attempt, outer, {})).status == "succeeded"
    assert begun["t/x"] == begun["u/x"] == begun["t/z"] == begun["u/z"] == 1


@pytest.mark.parametrize("resumes", [False, True])
async def test_a_pause_reaches_workflows_within_and_stays(resumes: bool) -> None:
    outer = "tasks: {t: {action: leaf, input: {at: t}}}"
    holds["t/y"] = asyncio.Event()
    attempt = KeptAttempt()
    run, running = await started(attempt, outer)
    await until("t/y")
    run.tell(Pause())
    holds["t/y"].set()
    await until("t/y", attempt.told)
    attempt = await lost(running, attempt)
    assert within(attempt.told, Pause) == [((1, None),)]
    if resumes:  # the run was told, and was lost before it had told the workflow
        resume = KeptAttempt(list(attempt.told))
        recording = await take_up(resume)
        recording.past.clear()
        recording.note(Resume(), recording.clock(), [], moved=True)
        recording.flush()
        assert (await ended(KeptAttempt(resume.told), outer)).status == "succeeded"
        assert begun == {"t/x": 1, "t/y": 1, "t/z": 1}
        return
    run, running = await started(attempt, outer)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not running.done()
    assert begun == {"t/x": 1, "t/y": 1}
    assert len(within(attempt.told, Pause)) == 1, "it is paused still"
    run.tell(Resume())
    assert (await asyncio.wait_for(running, PATIENCE_S)).status == "succeeded"
    assert begun == {"t/x": 1, "t/y": 1, "t/z": 1}


async def test_a_run_that_is_being_cancelled_runs_nothing_of_it_again() -> None:
    outer = "tasks: {t: {action: leaf, input: {at: t}}}"
    holds["t/y"] = asyncio.Event()
    attempt = KeptAttempt()
    run, running = await started(attempt, outer)
    await until("t/y")
    run.tell(Cancel())
    for _ in range(20):
        await asyncio.sleep(0)
    attempt = await lost(running, attempt)
    assert (await ended(attempt, outer)).status == "canceled"
    assert begun == {"t/x": 1, "t/y": 1}


SIGNALLED = {
    "inner": """
tasks:
  x: {action: later, input: {name: x}, next: [{do: w}]}
  w: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}]
""",
    "middle": """
tasks: {i: {action: inner, next: [{publish: [{v: "{{ result().v }}"}]}]}}
output: [{v: "{{ v }}"}]
""",
}
WAITING = """
tasks: {m: {action: middle, next: [{publish: [{v: "{{ result().v }}"}]}]}}
output: [{v: "{{ v }}"}]
"""


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_signal_finds_the_task_within_that_waits_for_it(is_early: bool) -> None:
    holds["x"] = asyncio.Event()
    whole = KeptAttempt()
    run, running = await started(whole, WAITING, SIGNALLED)
    await until("x")
    if not is_early:
        holds["x"].set()
        await until("x", whole.told)
    assert await run.order(Signal("other", 1)) is None
    assert await run.order(Signal("go", [7])) is None
    holds["x"].set()
    assert (await asyncio.wait_for(running, PATIENCE_S)).output == {"v": [7]}
    told = [moment.what for moment in moments(whole.told)]
    assert (TakeSignal("go") in told, Signal("go", [7]) in told) == (is_early, is_early)
    assert within(whole.told, Signal) == [((1, None), (1, None))]
    first = next(
        number
        for number in range(len(whole.told) + 1)
        if "go"
        in {getattr(_inmost(each.what), "name", "") for each in moments(whole.told[:number])}
    )
    for count in range(first, len(whole.told)):
        begun.clear()
        attempt = KeptAttempt(whole.told[:count])
        assert (await ended(attempt, WAITING, SIGNALLED)).output == {"v": [7]}, count
        assert not begun.keys() & done(whole.told[:count]), count


async def test_a_signal_is_kept_while_what_waits_for_it_is_taken_up() -> None:
    whole = KeptAttempt()
    _, running = await started(whole, WAITING, SIGNALLED)
    await until("x", whole.told)
    attempt = await lost(running, whole)
    run, running = await started(attempt, WAITING, SIGNALLED)
    run.tell(Signal("go", 7))
    assert (await asyncio.wait_for(running, PATIENCE_S)).output == {"v": 7}
    assert begun == {"x": 1}


async def test_a_signal_goes_to_a_task_of_the_run_before_those_within() -> None:
    outer = """
tasks:
  w: {action: core.wait, input: {event: go}, next: [{publish: [{w: "{{ result() }}"}]}]}
  m: {action: middle, next: [{publish: [{m: "{{ result().v }}"}]}]}
output: [{w: "{{ w }}"}, {m: "{{ m }}"}]
"""
    attempt = KeptAttempt()
    run, running = await started(attempt, outer, SIGNALLED)
    await until("x", attempt.told)
    run.tell(Signal("go", 1))
    run.tell(Signal("go", 2))
    assert (await asyncio.wait_for(running, PATIENCE_S)).output == {"w": 1, "m": 2}


async def test_what_must_not_run_twice_does_not_within_either() -> None:
    flows = {"inner": "tasks: {o: {action: once, input: {name: o}}}"}
    outer = "tasks: {t: {action: inner}}"
    holds["o"] = asyncio.Event()
    attempt = KeptAttempt()
    _, running = await started(attempt, outer, flows)
    await asyncio.sleep(0.01)
    assert begun["o"] == 0, "its beginning is not kept yet"
    assert within(attempt.told, Begun) == [((1, None),)]
    attempt.keep()
    await until("o")
    attempt = await lost(running, attempt)
    report = await ended(attempt, outer, flows)
    assert "must not run twice" in report.errors[0].message
    assert begun["o"] == 1


@pytest.mark.parametrize("outer", ["tasks: {t: {action: inner}}", ""])
async def test_what_follows_on_that_is_begun_once(outer: str) -> None:
    flows = {
        "inner": """
tasks:
  i:
    with: {items: "n in {{ range(3) }}", concurrency: 1, on_item_error: continue}
    action: once
    input: {name: "i{{ item('n') }}"}
  t: {action: once, input: {name: t}, next: [{when: "{{ failed() }}", do: [u, w]}]}
  u: {action: later, input: {name: u}}
  w: {with: {items: {action: letters, input: {count: 2}}, as: l}, action: later, input: {name: w}}
"""
    }
    holds["i0"] = holds["t"] = asyncio.Event()
    attempt = KeptAttempt()
    _, running = await started(attempt, outer or flows["inner"], flows)
    async with asyncio.timeout(PATIENCE_S):
        while begun != {"i0": 1, "t": 1}:
            await asyncio.sleep(0.001)
            attempt.keep()
        attempt = await lost(running, attempt)
        _, running = await started(attempt, outer or flows["inner"], flows)
        while not running.done():
            await asyncio.sleep(0.001)
            attempt.keep()
    assert (await running).status == "failed"
    assert begun == {"i0": 1, "t": 1, "i1": 1, "i2": 1, "u": 1, "w": 2}


async def test_another_attempt_of_the_task_begins_the_workflow_anew() -> None:
    flows = {"inner": FLOWS["leaf"].replace("0.001", "0")}
    outer = "tasks: {t: {action: inner, input: {at: t}, retry: {count: 1}}}"
    fails.add("t/z")
    whole = KeptAttempt()
    assert (await ended(whole, outer, flows)).status == "failed"
    assert begun == {"t/x": 2, "t/y": 2, "t/z": 2}
    assert within(whole.told, Start) == [((1, None),), ((2, None),)]
    for count in range(len(whole.told)):
        begun.clear()
        attempt = KeptAttempt(whole.told[:count])
        assert (await ended(attempt, outer, flows)).status == "failed"
        starts = within(attempt.told, Start)
        assert sorted(set(starts)) == sorted(starts), count


async def test_timers_within_go_on_while_nobody_conducts() -> None:
    flows = {
        "inner": """
timeout: 3000
tasks:
  w: {delay: 1000, action: step, input: {name: w}}
  r: {action: step, input: {name: r}, retry: {count: 1, delay: 2000}}
"""
    }
    fails.add("r")
    attempt = KeptAttempt()
    _, running = await started(attempt, "tasks: {t: {action: inner}}", flows)
    await until("r")
    await asyncio.sleep(0.01)
    attempt = await lost(running, attempt)

    async def after(seconds: float) -> RunReport | None:
        """Have it taken up so much later."""
        later = KeptAttempt(list(attempt.told))
        recording = await take_up(later)
        recording._epoch += seconds
        assert recording.workflow is not None
        served = {name: validate(each) for name, each in flows.items()}
        run = FlowRuntime(TABLE, served).start(recording.workflow, recording=recording)
        running = asyncio.ensure_future(run.run())
        await asyncio.wait([running], timeout=0.05)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait([running])
        return None

    assert await after(0) is None
    assert begun == {"r": 1}
    assert await after(1001) is None
    assert begun == {"r": 1, "w": 1}
    begun.clear()
    fails.clear()
    report = await after(2001)
    assert report is not None
    assert (report.status, begun) == ("succeeded", {"r": 1, "w": 1})
    begun.clear()
    report = await after(3001)
    assert report is not None
    assert "3000 s are over" in report.errors[0].message


async def test_a_run_that_has_failed_is_tried_again_from_what_has_failed_within() -> None:
    outer = """
tasks:
  m: {action: middle, input: {at: m}, next: [{when: "{{ succeeded() }}", do: n}]}
  n: {action: step, input: {name: n}}
"""
    fails.add("m/k1/z")
    failed = KeptAttempt()
    assert (await ended(failed, outer)).status == "failed"
    assert begun["n"] == 0
    failed.reopen()
    fails.clear()
    begun.clear()
    whole = KeptAttempt(list(failed.told))
    assert (await ended(whole, outer)).status == "succeeded"
    assert begun == {"m/k1/z": 1, "n": 1}
    for count in range(len(failed.told), len(whole.told)):
        begun.clear()
        attempt = KeptAttempt(whole.told[:count])
        assert (await ended(attempt, outer)).status == "succeeded"
        assert begun.keys() == {"m/k1/z", "n"} - done(whole.told[:count]), count


async def test_a_workflow_that_can_not_be_tried_again_begins_anew() -> None:
    flows = {"inner": "tasks: {x: {action: step, input: {name: x}, next: [{do: fail}]}}"}
    outer = "tasks: {t: {action: inner}}"
    attempt = KeptAttempt()
    assert (await ended(attempt, outer, flows)).status == "failed"
    attempt.reopen()
    attempt = KeptAttempt(attempt.told)
    assert (await ended(attempt, outer, flows)).status == "failed"
    assert begun == {"x": 2}
    assert within(attempt.told, Start) == [((1, None),), ((2, None),)]


async def test_what_only_begins_again_is_no_step_forward() -> None:
    outer = "tasks: {t: {action: leaf, input: {at: t}}}"
    holds["t/y"] = asyncio.Event()
    attempt = KeptAttempt()
    _, running = await started(attempt, outer)
    await until("t/y")
    attempt = await lost(running, attempt)
    before = len(attempt.told)
    _, running = await started(attempt, outer)
    begun.clear()
    await until("t/y")
    await asyncio.sleep(0)
    attempt = await lost(running, attempt)
    assert [type(each.what) for each in moments(attempt.told[before:])] == [TakeUp, Within]
    assert not any(each.moved for each in attempt.told[before:])


def test_outcome_of_an_inner_workflow() -> None:
    report = RunReport("failed", {"x": 1}, (RunFailure("task", "no", task="a"),))
    assert outcome_of(report) == Called(
        "failed",
        {"output": {"x": 1}, "errors": [{"kind": "task", "message": "no", "task": "a"}]},
        "a: no",
    )
    assert outcome_of(RunReport("succeeded", {"x": 1})).result == {"x": 1}
