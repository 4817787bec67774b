"""Mirror of worker/flow/actions.py; what runs where is in the integration tests."""

import asyncio
from time import monotonic
from typing import Any

from flow_nodes import TABLE
from kept_attempts import KeptAttempt
from losing_pools import LosingPool, LosingStreams

from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.actions import Actions
from pronghorn.worker.flow.events import (
    Ended,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    ItemToRun,
    PullItems,
    RunItems,
    RunTask,
)
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime

GIVEN = {"a": 1, "b": 1}


@node(at_most_once=True)
def once() -> list[int]:
    return [1]


class Acting:
    """Actions without a run, and what they tell."""

    def __init__(self, table: DispatchTable = TABLE, *, recorded: bool = False) -> None:
        self.told: list[Any] = []
        self.attempt = KeptAttempt()
        recording = Recording(self.attempt, []) if recorded else None
        self.actions = Actions(
            FlowRuntime(table), self.told.append, recording, within=None, depth=0
        )

    async def carry_out(self, *commands: Any, pool: LosingPool | None = None) -> list[Any]:
        """Have commands carried out beside, and return what is told of them."""
        actions = self.actions
        async with asyncio.TaskGroup() as group:
            actions.begin(group)
            actions._beside.pool = pool
            for command in commands:
                match command:
                    case RunTask():
                        ended = actions.run_task(command)
                        self.told += [] if ended is None else [ended]
                    case RunItems():
                        actions.run_items(command)
                    case PullItems():
                        actions.pull_items(command)
        return self.told


async def test_a_task_and_items_run_in_the_workers() -> None:
    task = RunTask(1, "t", "add", GIVEN, 0, "pool")
    items = RunItems(2, "u", [ItemToRun(5, "add", GIVEN)], 0, "pool", None, 1)
    pull = PullItems(3, "v", "core.echo", {"message": [7]}, 0, None, 9, 0)
    told = await Acting().carry_out(task, items, pull, pool=LosingStreams(0))
    assert Ended(1, "succeeded", 1) in told
    assert ItemsEnded(2, [ItemEnded(5, "succeeded", 5)]) in told
    assert ItemsGiven(3, [7], is_last=False) in told


async def test_what_is_not_there_has_failed() -> None:
    acting, items = Acting(), RunItems(2, "u", [ItemToRun(5, "nix", None)], 0, None, None, 1)
    pull = PullItems(3, "v", "nix", None, 0, None, 9, 0)
    ends = await acting.carry_out(RunTask(1, "t", "nix", None, 0, None), items, pull)
    (ended,) = [each for each in ends if isinstance(each, Ended)]
    assert (ended.status, "no node named" in ended.message) == ("failed", True)
    assert [type(each) for each in ends] == [Ended, ItemsEnded, ItemsGiven]


async def test_a_node_that_must_not_run_twice_gives_no_items_of_a_recorded_run() -> None:
    acting = Acting(DispatchTable.of({"s.once": once}), recorded=True)
    (event,) = await acting.carry_out(PullItems(1, "t", "s.once", None, 0, None, 9, 0))
    assert (event.status, event.is_last) == ("failed", True)


async def test_what_waits_for_its_turn_here_can_be_stopped() -> None:
    acting = Acting()
    items = [ItemToRun(index, "add", {"a": index}) for index in range(3)]
    task = RunTask(2, "t", "add", GIVEN, 0, None)
    await acting.carry_out(RunItems(1, "t", items, 0, None, None, 3), task)
    assert acting.actions.wait_here
    assert acting.actions.run_here(monotonic()) == ItemsEnded(1, [ItemEnded(0, "succeeded", 1)])
    acting.actions.stop(1)
    acting.actions.stop(2)
    assert not acting.actions.wait_here
    (ended, stopped) = acting.told[::-1]
    assert [(each.index, each.status) for each in stopped.items] == [
        (1, "canceled"),
        (2, "canceled"),
    ]
    assert (ended.execution, ended.status) == (2, "canceled")
