"""Mirror of worker/core.py."""

import pytest
from requests_of import Page

from pronghorn.broker.wire.slots import SlotsPage, SlotState
from pronghorn.worker.core import WorkerCore

SLOT, TOKEN = 3, 17


@pytest.fixture
def shared() -> SlotsPage:
    return Page()


@pytest.fixture
def core(shared: SlotsPage) -> WorkerCore[str]:
    return WorkerCore(shared)


def test_a_request_is_begun_by_its_claim(core: WorkerCore[str], shared: SlotsPage) -> None:
    assert shared.state(SLOT, TOKEN) is SlotState.HELD
    assert core.begin(SLOT, TOKEN, 5)
    assert shared.state(SLOT, TOKEN) is SlotState.STARTED
    assert shared.started_ns(SLOT) == 5
    assert not shared.revoke(SLOT, TOKEN)


def test_what_was_taken_back_is_not_begun(core: WorkerCore[str], shared: SlotsPage) -> None:
    assert shared.revoke(SLOT, TOKEN)
    assert not core.begin(SLOT, TOKEN, 5)


def test_an_inline_request_is_never_in_flight(core: WorkerCore[str], shared: SlotsPage) -> None:
    core.begin(SLOT, TOKEN, 5)
    assert not core.is_busy
    core.finish_inline(SLOT, TOKEN)
    assert shared.state(SLOT, TOKEN) is SlotState.FINISHED


def test_what_runs_beside_others_is_in_flight(core: WorkerCore[str], shared: SlotsPage) -> None:
    core.begin(SLOT, TOKEN, 5)
    core.running(TOKEN, "task")
    core.running(TOKEN + 1, "other task")
    assert core.is_busy
    assert core.in_flight == ["task", "other task"]
    assert core.cancelled(TOKEN) == "task"
    core.finish(SLOT, TOKEN)
    assert core.in_flight == ["other task"]
    assert shared.state(SLOT, TOKEN) is SlotState.FINISHED


def test_a_cancel_that_comes_late_or_for_nothing_finds_nothing(core: WorkerCore[str]) -> None:
    assert core.cancelled(TOKEN) is None
    core.running(TOKEN, "task")
    core.finish(SLOT, TOKEN)
    assert core.cancelled(TOKEN) is None


def test_it_is_drained_when_told_to_stop_and_nothing_is_in_flight(core: WorkerCore[str]) -> None:
    assert not core.drained
    core.running(TOKEN, "task")
    core.stop()
    assert not core.drained
    core.finish(SLOT, TOKEN)
    assert core.drained
