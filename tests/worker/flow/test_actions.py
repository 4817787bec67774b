"""Mirror of worker/flow/actions.py; what runs where is in the integration tests."""

import asyncio
from typing import Any

import pytest
from flow_nodes import TABLE
from kept_attempts import KeptAttempt

from pronghorn.broker.wire.flows import RunFailure, RunReport
from pronghorn.worker.flow import actions
from pronghorn.worker.flow.actions import Actions, outcome_of
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.events import (
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemToRun,
    RunItems,
    RunTask,
)
from pronghorn.worker.flow.pooling import WorkerPool
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime

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
