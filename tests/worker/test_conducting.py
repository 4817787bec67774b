"""The calls by which runs are made: what they find, refuse and keep."""

import asyncio
from typing import Any

import pytest
from flow_nodes import TABLE
from kept_attempts import KeptAttempt

from pronghorn.broker.wire.errors import (
    CancelledError,
    InvalidArgumentError,
    NodeError,
    NotFoundError,
)
from pronghorn.broker.wire.flows import (
    CONTROL,
    FLOW,
    FOLLOW,
    RUN,
    RUN_ID_MAX,
    RunFailure,
    RunReport,
)
from pronghorn.worker.conducting import Conducting, builtin_calls, failure_of
from pronghorn.worker.context import Context
from pronghorn.worker.recorded import Past

CONTEXT = Context(request_id="1", node="n", worker_id=1)
ECHO = {"tasks": {"t": {"action": "add", "input": {"a": 1}}}, "output": [{"x": 1}]}
SIGNALLED = {
    "tasks": {
        "w": {
            "action": "core.wait",
            "input": {"event": "go"},
            "next": [{"publish": [{"x": "{{ result() }}"}]}],
        }
    },
    "output": [{"x": "{{ x }}"}],
}
WAIT = {"tasks": {"t": {"action": "core.sleep", "input": {"seconds": 60}}}}


@pytest.fixture
def calls() -> dict[str, Any]:
    conducting = Conducting()
    conducting.use(TABLE, caller=None)
    return builtin_calls(conducting)


async def test_run_tells_how_it_has_ended(calls: dict[str, Any]) -> None:
    report = await calls[RUN](CONTEXT, definition=ECHO, id="mine")
    assert report == RunReport("succeeded", {"x": 1}, (), "mine")
    assert (await calls[RUN](CONTEXT, definition="tasks: {t: null}")).status == "succeeded"


async def test_what_is_no_workflow_is_refused(calls: dict[str, Any]) -> None:
    with pytest.raises(NotFoundError, match="nix"):
        await calls[RUN](CONTEXT, workflow="nix")
    with pytest.raises(NotFoundError, match="is a node, not a workflow"):
        await calls[RUN](CONTEXT, workflow="add")
    with pytest.raises(InvalidArgumentError, match=r"2:3: tasks\.t: "):
        await calls[RUN](CONTEXT, definition="tasks:\n  t: 3")
    with pytest.raises(InvalidArgumentError, match="longer than"):
        await calls[RUN](CONTEXT, definition=ECHO, id="x" * (RUN_ID_MAX + 1))


async def test_a_run_is_followed_and_controlled_by_its_id(calls: dict[str, Any]) -> None:
    events = calls[FOLLOW](CONTEXT, definition=WAIT, id="mine")
    assert (await anext(events)).run == "mine"
    with pytest.raises(InvalidArgumentError, match="is taken"):
        await anext(calls[FOLLOW](CONTEXT, definition=WAIT, id="mine"))
    await calls[CONTROL]("mine", "cancel")
    with pytest.raises(InvalidArgumentError, match=r"mine: .*can't be paused"):
        await calls[CONTROL]("mine", "pause")
    await calls[CONTROL]("mine", "cancel", stop_running=True)
    kinds = [(event.kind, event.status) async for event in events]
    assert kinds[-1] == ("ended", "canceled")
    with pytest.raises(NotFoundError, match="mine has ended"):
        await calls[CONTROL]("mine", "pause")


async def test_to_leave_the_events_ends_the_run(calls: dict[str, Any]) -> None:
    events = calls[FOLLOW](CONTEXT, definition=WAIT, id="mine")
    await anext(events)
    await events.aclose()
    with pytest.raises(NotFoundError):
        await calls[CONTROL]("mine", "pause")


async def test_a_recorded_run_rests_and_goes_on(
    calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronghorn.worker.flow.live.REST_S", 0.01)
    context = Context(request_id="1", node="n", worker_id=1)
    first = KeptAttempt()
    context.recording = first
    with pytest.raises(CancelledError, match="it rests"):
        await calls[FLOW](context, definition=SIGNALLED)
    assert first.rests == [None]
    with pytest.raises(NotFoundError):
        await calls[CONTROL](first.run, "signal", "go", 7)
    context.recording = KeptAttempt(first.told)
    going_on = asyncio.create_task(calls[FLOW](context, definition=SIGNALLED))
    await asyncio.sleep(0)
    await calls[CONTROL](first.run, "signal", "go", 7)
    assert await going_on == {"x": 7}


async def test_an_order_waits_for_a_run_that_is_being_taken_up(calls: dict[str, Any]) -> None:
    class Slow(KeptAttempt):
        async def history(self) -> list[Past]:
            await asyncio.sleep(0.01)
            return []

    context = Context(request_id="1", node="n", worker_id=1)
    context.recording = attempt = Slow()
    running = asyncio.create_task(calls[FLOW](context, definition=SIGNALLED))
    await asyncio.sleep(0)
    await calls[CONTROL](attempt.run, "signal", "go", 7)
    assert await running == {"x": 7}


def test_errors_of_runs() -> None:
    failed = failure_of(RunReport("failed", None, (RunFailure("task", "m", "t"),)), "flow")
    assert isinstance(failed, NodeError)
    assert (failed.message, failed.details.exception) == ("flow: t: m", "RunFailed")
    assert isinstance(failure_of(RunReport("canceled"), "flow"), CancelledError)
