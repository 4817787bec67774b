"""Mirror of worker/flow/beside.py; what runs where is in the integration tests."""

import pytest
from flow_nodes import TABLE
from kept_attempts import KeptAttempt
from losing_pools import LosingPool

from pronghorn.worker.flow import beside
from pronghorn.worker.flow.beside import Beside
from pronghorn.worker.flow.events import ItemToRun
from pronghorn.worker.flow.inner import InnerRuns
from pronghorn.worker.flow.recording import Recording
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.sharing import Sharing

GIVEN = {"a": 1, "b": 1}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_AGAIN_S", 0.0)


def made(pool: LosingPool, *, recorded: bool) -> Beside:
    recording = Recording(KeptAttempt(), []) if recorded else None
    runtime = FlowRuntime(TABLE)
    sharing = Sharing()
    inner = InnerRuns(runtime, recording, sharing, within=None, depth=0)
    calls = Beside(runtime, recording, inner, sharing, within=None)
    calls.pool = pool
    return calls


@pytest.mark.parametrize(
    ("recorded", "losses", "status", "begun"),
    [
        (False, 1, "abandoned", 1),
        (True, 2, "succeeded", 3),
        (True, 9, "abandoned", beside.LOST_MAX),
    ],
)
async def test_a_recorded_task_whose_worker_is_lost_is_begun_again(
    recorded: bool, losses: int, status: str, begun: int
) -> None:
    pool = LosingPool(losses)
    calls = made(pool, recorded=recorded)
    called = await calls.called((1, None), "t", TABLE.lookup("add"), GIVEN, None, leaves=True)
    assert (called.status, pool.begun) == (status, begun)


@pytest.mark.parametrize(("recorded", "first"), [(True, "succeeded"), (False, "abandoned")])
async def test_items_are_begun_again_that_were_lost(recorded: bool, first: str) -> None:
    items = [ItemToRun(index, "add", GIVEN) for index in range(2)]
    calls = made(LosingPool(1), recorded=recorded)
    ended = await calls.call_items(TABLE.lookup("add"), items)
    assert {each.index: each.status for each in ended} == {0: first, 1: "succeeded"}
