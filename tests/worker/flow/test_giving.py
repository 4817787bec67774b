"""Mirror of worker/flow/giving.py; what runs where is in the integration tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from kept_attempts import KeptAttempt
from losing_pools import LosingStreams

from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable, Entry
from pronghorn.worker.flow import beside
from pronghorn.worker.flow.beside import Beside
from pronghorn.worker.flow.builtin import BUILTIN
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.events import PullItems
from pronghorn.worker.flow.giving import Giving
from pronghorn.worker.flow.inner import InnerRuns
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.sharing import Sharing


@node
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@node(at_most_once=True)
def once() -> list[int]:
    return [1]


TABLE = DispatchTable.of({"s.numbers": numbers, "s.once": once})
LOST = Called("failed", None, "no node named so")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_AGAIN_S", 0.0)


async def given(
    found: Entry | Called,
    *,
    losses: int | None = None,
    recorded: bool = True,
    is_once: bool = False,
) -> list[Any]:
    """Have a node give items of which two were given before, and return what is told."""
    told: list[Any] = []
    recording = Recording(KeptAttempt(), []) if recorded else None
    runtime = FlowRuntime(TABLE)
    sharing = Sharing()
    inner = InnerRuns(runtime, recording, sharing, within=None, depth=0)
    calls = Beside(runtime, recording, inner, sharing, within=None)
    calls.pool = None if losses is None else LosingStreams(losses)
    giving = Giving(calls, told.append)
    params = {"message": "hi"} if isinstance(found, Entry) and not found.streams else {"count": 5}
    command = PullItems(1, "t", "s.it", params, 0, None, 9, 2)
    assert not giving.ask(command)
    await giving.give(command, found, is_once=is_once, leaves=losses is not None)
    assert giving.ask(command)
    return told


@pytest.mark.parametrize(
    ("recorded", "values", "status"),
    [(True, [2, 3, 4], "succeeded"), (False, [2], "abandoned")],
)
async def test_a_generator_whose_worker_is_lost_goes_on_behind_what_it_has_given(
    recorded: bool, values: list[int], status: str
) -> None:
    told = await given(TABLE.lookup("s.numbers"), losses=1, recorded=recorded)
    assert [value for event in told for value in event.values] == values
    assert [(event.is_last, event.status) for event in told][-1] == (True, status)


async def test_a_node_that_must_not_run_twice_gives_no_items_of_a_recorded_run() -> None:
    (event,) = await given(TABLE.lookup("s.once"), is_once=True)
    assert (event.status, event.is_last) == ("failed", True)
    assert event.message == "s.it must not run twice: it can't give items of a recorded run"


@pytest.mark.parametrize(
    ("found", "message"),
    [(BUILTIN["core.echo"], "s.it is to give items: a list, not str"), (LOST, LOST.message)],
)
async def test_what_gives_no_items(found: Entry | Called, message: str) -> None:
    (event,) = await given(found)
    assert (event.status, event.message) == ("failed", message)


async def test_a_generator_in_this_process_leaves_out_what_it_has_given() -> None:
    told = await given(TABLE.lookup("s.numbers"))
    assert [value for event in told for value in event.values] == [2, 3, 4]
