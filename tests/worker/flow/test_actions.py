"""Mirror of worker/flow/actions.py; what runs where is in the integration tests."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from flow_nodes import TABLE
from kept_attempts import KeptAttempt
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import ErrorDetails, WorkerLostError
from pronghorn.broker.wire.flows import RunFailure, RunReport
from pronghorn.broker.wire.messages import Error, Part, Result
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow import actions
from pronghorn.worker.flow.actions import Actions, outcome_of
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.events import (
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemToRun,
    PullItems,
    RunItems,
    RunTask,
)
from pronghorn.worker.flow.pooling import WorkerPool
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime


@node
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@node(at_most_once=True)
def once() -> list[int]:
    return [1]


STREAMS = DispatchTable.of({"s.numbers": numbers, "s.once": once})
LOST = Called("abandoned", None, "the worker was lost")


class LosingPool(WorkerPool):
    """Loses the worker of everything so many times."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.begun = 0

    async def task(self, *_: Any) -> Called:
        self.begun += 1
        return LOST if self.begun <= self.losses else Called("succeeded", self.begun)

    async def items(self, entry: Any, items: Any, *_: Any) -> list[ItemEnded]:
        self.begun += 1
        ok = self.begun > self.losses
        return [
            ItemEnded(each.index, *(Called("succeeded", each.index) if ok or each.index else LOST))
            for each in items
        ]


async def ended(pool: LosingPool, *, recorded: bool, items: int = 0) -> list[Event]:
    told: asyncio.Queue[Event] = asyncio.Queue()
    recording = Recording(KeptAttempt(), []) if recorded else None
    made = Actions(FlowRuntime(TABLE), told.put_nowait, recording, within=None, depth=0)
    async with asyncio.TaskGroup() as group:
        made.begin(group)
        made._pool = pool
        if items:
            todo = [ItemToRun(index, "add", {"a": 1, "b": 1}) for index in range(items)]
            made.run_items(RunItems(1, "t", todo, 0, "pool", None, items))
        else:
            assert made.run_task(RunTask(1, "t", "add", {"a": 1, "b": 1}, 0, "pool")) is None
        return [await asyncio.wait_for(told.get(), 5) for _ in range(items or 1)]


class LosingArrivals:
    """Some parts, then the loss of the worker, or the end."""

    def __init__(self, parts: int, *, loses: bool) -> None:
        self._arrivals: deque[Any] = deque(
            (Part(1, number, Raw(encode(number))), ()) for number in range(parts)
        )
        lost = Error(1, WorkerLostError.code, "gone", ErrorDetails(outcome="maybe_executed"))
        self._arrivals.append((lost if loses else Result(1, Raw(encode(None))), ()))

    def take(self) -> Any:
        return self._arrivals.popleft()

    async def wait(self) -> None:
        raise AssertionError("all is there")

    def close(self) -> None:
        pass


class LosingStreams(LosingPool):
    """Loses the worker of a generator of 5 numbers behind the third, so many times."""

    async def stream(self, *_: Any) -> Any:
        self.begun += 1
        loses = self.begun <= self.losses
        return LosingArrivals(3 if loses else 5, loses=loses)


@pytest.mark.parametrize(
    ("recorded", "values", "status"),
    [(True, [2, 3, 4], "succeeded"), (False, [2], "abandoned")],
)
async def test_a_generator_whose_worker_is_lost_goes_on_behind_what_it_has_given(
    recorded: bool, values: list[int], status: str
) -> None:
    told: list[Any] = []
    recording = Recording(KeptAttempt(), []) if recorded else None
    made = Actions(FlowRuntime(STREAMS), told.append, recording, within=None, depth=0)
    async with asyncio.TaskGroup() as group:
        made.begin(group)
        made._pool = LosingStreams(1)
        made.pull_items(PullItems(1, "t", "s.numbers", {"count": 5}, 0, "pool", 9, 2))
    assert [value for event in told for value in event.values] == values
    assert [(event.is_last, event.status) for event in told][-1] == (True, status)


async def test_a_node_that_must_not_run_twice_gives_no_items_of_a_recorded_run() -> None:
    told: list[Any] = []
    recording = Recording(KeptAttempt(), [])
    made = Actions(FlowRuntime(STREAMS), told.append, recording, within=None, depth=0)
    async with asyncio.TaskGroup() as group:
        made.begin(group)
        made.pull_items(PullItems(1, "t", "s.once", None, 0, None, 9, 0))
    (event,) = told
    assert (event.status, event.is_last) == ("failed", True)
    assert "must not run twice" in event.message


@pytest.mark.parametrize(
    ("action", "message"),
    [("core.echo", "is to give items: a list, not str"), ("s.nowhere", "no node named")],
)
async def test_what_gives_no_items(action: str, message: str) -> None:
    told: list[Any] = []
    made = Actions(FlowRuntime(STREAMS), told.append, None, within=None, depth=0)
    async with asyncio.TaskGroup() as group:
        made.begin(group)
        made.pull_items(PullItems(1, "t", action, {"message": "hi"}, 0, None, 9, 0))
    (event,) = told
    assert event.status == "failed"
    assert message in event.message


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_AGAIN_S", 0.0)


@pytest.mark.parametrize(
    ("recorded", "losses", "status", "begun"),
    [
        (False, 1, "abandoned", 1),
        (True, 2, "succeeded", 3),
        (True, 9, "abandoned", actions.LOST_MAX),
    ],
)
async def test_a_recorded_task_whose_worker_is_lost_is_begun_again(
    recorded: bool, losses: int, status: str, begun: int
) -> None:
    pool = LosingPool(losses)
    (event,) = await ended(pool, recorded=recorded)
    assert isinstance(event, Ended)
    assert (event.status, pool.begun) == (status, begun)


@pytest.mark.parametrize(("recorded", "first"), [(True, "succeeded"), (False, "abandoned")])
async def test_items_are_begun_again_that_were_lost(recorded: bool, first: str) -> None:
    events = await ended(LosingPool(1), recorded=recorded, items=2)
    items = [each for event in events if isinstance(event, ItemsEnded) for each in event.items]
    assert {each.index: each.status for each in items} == {0: first, 1: "succeeded"}


def test_outcome_of_an_inner_workflow() -> None:
    report = RunReport("failed", {"x": 1}, (RunFailure("task", "no", task="a"),))
    assert outcome_of(report) == Called(
        "failed",
        {"output": {"x": 1}, "errors": [{"kind": "task", "message": "no", "task": "a"}]},
        "a: no",
    )
    assert outcome_of(RunReport("succeeded", {"x": 1})).result == {"x": 1}
