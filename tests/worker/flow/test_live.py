"""One run: turns, orders, events that nobody takes."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from flow_nodes import TABLE
from kept_attempts import KeptAttempt

from pronghorn.broker.wire.errors import NotFoundError
from pronghorn.broker.wire.flows import FlowEvent, RunReport
from pronghorn.worker.flow import live
from pronghorn.worker.flow.events import Cancel, Pause, Resume, RunItems
from pronghorn.worker.flow.feed import Feed, Watch
from pronghorn.worker.flow.live import LiveRun, RestError
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.validation import validate

OUTER = """
tasks:
  a: {action: inner, next: [{when: "{{ succeeded() }}", do: b}]}
  b:
"""
INNER = """
tasks:
  x: {action: never, timeout: 0.01, next: [{do: y}]}
  y:
"""


def started(definition: str) -> LiveRun:
    runtime = FlowRuntime(TABLE, {"inner": validate(INNER)})
    return runtime.start(validate(definition), run_id="r")


async def kinds(events: AsyncIterator[FlowEvent]) -> list[tuple[str, str | None]]:
    return [(event.kind, event.task or event.status) async for event in events]


async def test_what_runs_beside_begins_before_items_that_run_here() -> None:
    run = started("""
tasks:
  a: {with: "{{ range(3000) }}", action: add, input: {a: "{{ item() }}"}}
  b: {action: never, timeout: 0.001, next: [{do: noop}]}
""")
    told = await kinds(run.follow())
    assert told.index(("task_ended", "b")) < told.index(("task_ended", "a"))


async def test_an_order_is_answered_and_handed_on_to_inner_workflows() -> None:
    run = started(OUTER)
    async with aclosing(run.follow()) as events:
        assert (await anext(events)).kind == "begun"
        assert await run.order(Pause()) is None
        assert await run.order(Cancel()) is None
        assert await run.order(Resume()) == "a run that is canceling can't be resumed"
        told = [event.kind async for event in events]
    assert told[-1] == "ended"
    with pytest.raises(NotFoundError, match="run r has ended"):
        await run.order(Pause())


async def test_a_run_waits_for_who_takes_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronghorn.worker.flow.feed.AHEAD_MAX", 4)
    names = [f"t{number:02}" for number in range(20)]
    tasks = "".join(
        f"  {name}: {{next: [{{do: {then}}}]}}\n"
        for name, then in zip(names, [*names[1:], "noop"], strict=True)
    )
    run = started(f"tasks:\n{tasks}")
    async with aclosing(run.follow()) as events:
        await anext(events)
        for _ in range(100):
            await asyncio.sleep(0)
        assert run.report is None
        assert len(await kinds(events)) == 2 * len(names) + 3
    assert run.report == RunReport("succeeded", None, (), "r")


async def test_a_deadline_is_kept_while_items_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TURN_S", 0.0)
    run = started("""
tasks:
  a: {with: "{{ range(200) }}", action: in_thread, input: {n: 1}, timeout: 0.005}
""")
    ended = await run.run()
    assert ended.errors[0].kind == "timeout"


def test_progress_that_nobody_took_gives_way_to_what_is_newer() -> None:
    watch = Watch(Feed())
    watch.on_command(RunItems(1, "t", [], 0, None, None, 10), 0.5)
    watch.on_items(1, 3, 0, 1.0)
    watch.on_items(1, 7, 1, 2.0)
    assert watch.take() == FlowEvent(1, "task_started", task="t", execution=1, count=10, at_s=0.5)
    assert watch.take() == FlowEvent(
        2, "items", task="t", execution=1, done=7, failed=1, count=10, at_s=1.0
    )
    assert watch.take() is None


async def test_large_variables_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pronghorn.worker.flow.live.CONTEXT_WARN_BYTES", 3 << 20)
    run = started("""
tasks:
  a: {next: [{publish: [{small: "{{ 'x' * 2000000 }}"}], do: b}]}
  b: {next: [{publish: [{large: "{{ 'x' * 2100000 }}"}], do: c}]}
  c: {next: [{publish: [{more: 1}]}]}
""")
    events = [event async for event in run.follow()]
    (warning,) = caplog.messages
    assert warning == "run r: its variables have 4 MiB, the largest is 'large' with 2 MiB"
    assert run.report is not None
    assert events[-1].context == run.report.context
    assert run.report.context.growth == 4_100_025


WAITS = "tasks: {w: {action: core.wait, input: {event: go}}}"
LATER = "tasks: {w: {delay: 60}}"


def recorded(definition: str, **flows: str) -> LiveRun:
    runtime = FlowRuntime(TABLE, {name: validate(each) for name, each in flows.items()})
    return runtime.start(validate(definition), recording=Recording(KeptAttempt(), []))


@pytest.mark.parametrize(
    ("definition", "inner", "left_s"),
    [
        (WAITS, WAITS, None),
        (LATER, WAITS, 60),
        ("tasks: {t: {action: inner}}", WAITS, None),
        ("tasks: {t: {with: '{{ [1, 2] }}', action: inner}, u: {delay: 90}}", LATER, 60),
    ],
)
async def test_a_recorded_run_that_has_nothing_to_do_is_let_go(
    monkeypatch: pytest.MonkeyPatch, definition: str, inner: str, left_s: float | None
) -> None:
    monkeypatch.setattr(live, "REST_S", 0.01)
    run = recorded(definition, inner=inner)
    with pytest.raises(RestError) as rests:
        await asyncio.wait_for(run.run(), 5)
    assert rests.value.left_s == (left_s and pytest.approx(left_s, abs=1.0))
    with pytest.raises(NotFoundError):
        await run.order(Pause())


@pytest.mark.parametrize(
    ("definition", "inner"),
    [
        ("tasks: {n: {action: never}}", WAITS),
        ("tasks: {t: {action: inner}, n: {action: never}}", WAITS),
        ("tasks: {t: {action: inner}}", "tasks: {n: {action: never}}"),
        ("tasks: {t: {action: inner, timeout: 60}}", WAITS),
        ("tasks: {w: {delay: 4}}", WAITS),
        ("tasks: {t: {action: inner}}", "tasks: {w: {delay: 4}}"),
    ],
)
async def test_a_run_that_has_something_to_do_is_not_let_go(
    monkeypatch: pytest.MonkeyPatch, definition: str, inner: str
) -> None:
    monkeypatch.setattr(live, "REST_S", 0.001)
    running = asyncio.create_task(recorded(definition, inner=inner).run())
    await asyncio.wait([running], timeout=0.05)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_a_run_that_is_not_recorded_waits_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "REST_S", 0.001)
    running = asyncio.create_task(started(WAITS).run())
    await asyncio.wait([running], timeout=0.02)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_a_run_that_has_ended_needs_no_collector() -> None:
    run = started("""
tasks:
  a: {action: never, timeout: 0.001, next: [{do: b}]}
  b: {action: add, input: {a: 1}, next: [{do: noop}]}
""")
    await run.run()
    ended = weakref.ref(run)
    gc.disable()
    try:
        del run
        await asyncio.sleep(0)  # what its last turn has left on the loop
        assert ended() is None
    finally:
        gc.enable()
