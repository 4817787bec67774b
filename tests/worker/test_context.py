"""Mirror of worker/context.py."""

import logging
from time import monotonic

import pytest

from pronghorn.worker import Context


def make(deadline: float | None = None) -> Context:
    return Context(request_id="17", node="nodes.add", worker_id=3, deadline=deadline)


def test_attributes() -> None:
    context = make(deadline=5.0)
    assert (context.request_id, context.node, context.worker_id) == ("17", "nodes.add", 3)
    assert context.deadline == 5.0
    assert repr(context) == "<Context of nodes.add, request 17, worker 3>"


def test_outside_of_a_run_there_is_no_attempt() -> None:
    context = make()
    assert (context.run_id, context.attempt, context.fence) == (None, 0, 0)


def test_time_left() -> None:
    assert make().time_left() is None
    assert make(deadline=0.0).time_left() == 0.0
    left = make(deadline=monotonic() + 60).time_left()
    assert left is not None
    assert 59 < left <= 60


def test_cancelled_once_the_deadline_has_passed() -> None:
    assert not make(deadline=monotonic() + 60).cancelled
    assert make(deadline=monotonic()).cancelled


def test_cancelled_is_for_good_and_read_only() -> None:
    context = make()
    assert not context.cancelled
    context.mark_cancelled()
    assert context.cancelled
    with pytest.raises(AttributeError):
        context.cancelled = False  # type: ignore[misc]


def test_log_records_carry_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    context = make()
    assert context.log is context.log
    with caplog.at_level(logging.INFO, "nodes.add"):
        context.log.info("adding %d", 5)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("nodes.add", "adding 5")
    carried = vars(record)
    assert (carried["request_id"], carried["node"], carried["worker_id"]) == ("17", "nodes.add", 3)


def test_what_runs_within_a_cancelled_call_is_cancelled() -> None:
    outer = Context(request_id="7", node="m.outer", worker_id=1)
    inner = Context(request_id="7", node="m.inner", worker_id=1, within=outer)
    assert not inner.cancelled
    outer.mark_cancelled()
    assert inner.cancelled


async def test_a_context_made_by_hand_calls_nobody() -> None:
    context = Context(request_id="7", node="m.add", worker_id=1)
    with pytest.raises(RuntimeError, match="made by hand"):
        context.call_sync("m.other")
    with pytest.raises(RuntimeError, match="made by hand"):
        await context.call("m.other")
