"""Mirror of broker/verdicts.py; each refusal as a client sees it is in test_core.py."""

from typing import Any

import pytest
from requests_of import QUICK, SLEEP, ready_worker, request, session

from pronghorn.broker.placement import Placement
from pronghorn.broker.queue import ReadyQueue
from pronghorn.broker.requests import Node
from pronghorn.broker.verdicts import (
    RETRY_AFTER_MS,
    RUNNING_MAX,
    full_details,
    refusal,
    running_in,
    size_refusal,
    worker_lost,
)
from pronghorn.broker.wire.errors import (
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    OverloadedError,
    PronghornError,
    UnimplementedError,
)
from pronghorn.broker.wire.limits import ID_BYTES_MAX, TIMEOUT_MS_MAX, Bounds, Limits
from pronghorn.broker.wire.messages import NO_OPTIONS, Options, RequestId
from pronghorn.broker.wire.slots import SlotState

BOUNDS = Bounds(queue_requests=3, queue_bytes=50)


def refuse(
    *,
    id_: RequestId = 1,
    options: Options = NO_OPTIONS,
    size: int = 10,
    waiting: tuple[int, ...] = (),
    **of_session: Any,
) -> PronghornError | None:
    queue = ReadyQueue()
    for each in waiting:
        queue.append(request(QUICK, size=each))
    peer = session(grant=2)
    for name, value in of_session.items():
        setattr(peer, name, value)
    return refusal(peer, queue, BOUNDS, grant_bytes=100, id_=id_, options=options, size=size)


@pytest.mark.parametrize(
    "fitting",
    [
        {},
        {"unacknowledged": 1, "acknowledged": 4},
        {"open_bytes": 90},
        {"waiting": (20, 20)},
        {"id_": "x" * ID_BYTES_MAX},
        {"id_": None},
        {"options": Options(timeout_ms=TIMEOUT_MS_MAX, durability="none")},
    ],
)
def test_at_the_limits_a_request_is_accepted(fitting: dict[str, Any]) -> None:
    assert refuse(**fitting) is None


@pytest.mark.parametrize(
    ("excess", "error", "limit"),
    [
        ({"open": {7: request(), 8: request()}}, OverloadedError, 2),
        ({"open": {7: request()}, "unacknowledged": 1, "acknowledged": 4}, OverloadedError, 2),
        ({"open_bytes": 91}, OverloadedError, 100),
        ({"waiting": (1, 1, 1)}, OverloadedError, 3),
        ({"waiting": (21, 20)}, OverloadedError, 50),
        ({"open": {1: request()}}, InvalidArgumentError, None),
        ({"id_": "x" * (ID_BYTES_MAX + 1)}, InvalidArgumentError, None),
        ({"options": Options(timeout_ms=0.0)}, InvalidArgumentError, None),
        ({"options": Options(timeout_ms=TIMEOUT_MS_MAX + 1)}, InvalidArgumentError, None),
        ({"options": Options(value_ref="x")}, UnimplementedError, None),
    ],
)
def test_beyond_a_limit_it_is_refused(
    excess: dict[str, Any], error: type[PronghornError], limit: int | None
) -> None:
    verdict = refuse(**excess)
    assert isinstance(verdict, error)
    assert verdict.outcome == "not_started"
    assert verdict.details.limit == limit
    if error is OverloadedError:
        assert verdict.retryable
        assert verdict.details.retry_after_ms == RETRY_AFTER_MS
        assert str(limit) in verdict.message


def test_an_outcome_that_the_class_implies_is_filled_in() -> None:
    assert full_details(InvalidArgumentError("")) == ErrorDetails(outcome="not_started")
    assert full_details(CancelledError("")) == ErrorDetails()
    details = ErrorDetails(outcome="maybe_executed", node="m.add")
    assert full_details(InvalidArgumentError("", details)) is details


@pytest.mark.parametrize(
    ("chunk", "state", "outcome"),
    [
        (False, SlotState.STARTED, "maybe_executed"),
        (False, SlotState.FINISHED, "executed"),
        (True, SlotState.STARTED, "maybe_executed"),
        (True, SlotState.FINISHED, "maybe_executed"),
    ],
)
def test_what_is_known_of_a_request_whose_worker_ended(
    chunk: bool, state: SlotState, outcome: str
) -> None:
    placement = Placement()
    worker = ready_worker(placement)
    lost = request(Node(0, "m.node", concurrent=False), chunk=chunk)
    assert placement.place(lost, 1.0) is worker
    running = ("m.node for 1.0 ms",)
    error = worker_lost(
        worker, lost, state, "signal 11 (SIGSEGV)", stack="File a, line 1", running=running
    )
    assert (error.details.traceback, error.details.running) == ("File a, line 1", running)
    assert error.message == "m.node: its worker ended with signal 11 (SIGSEGV)"
    assert error.outcome == outcome
    assert (error.cause, error.details.node) == ("signal 11 (SIGSEGV)", "m.node")


def test_what_a_worker_ran_is_told_the_longest_first() -> None:
    placement = Placement()
    worker = ready_worker(placement)
    nodes = [Node(index, f"m.n{index}", concurrent=True) for index in range(4)]
    requests = [request(node) for node in nodes]
    for one in requests:
        assert placement.place(one, 1.0) is worker
    for one, begun_ns in zip(requests, (3_000_000, 1_000_000, 2_000_000), strict=False):
        worker.page.claim(one.slot, one.token, begun_ns)
    worker.page.finish(requests[2].slot, requests[2].token)
    assert running_in(worker, 0.0045) == ("m.n1 for 3.5 ms", "m.n0 for 1.5 ms")


def test_no_more_is_told_of_what_ran_than_can_be_read() -> None:
    placement = Placement()
    worker = ready_worker(placement)
    for _ in range(RUNNING_MAX + 3):
        one = request(SLEEP)
        assert placement.place(one, 1.0) is worker
        worker.page.claim(one.slot, one.token, 1)
    assert len(running_in(worker, 1.0)) == RUNNING_MAX


@pytest.mark.parametrize(
    ("size", "buffers", "limit"), [(4097, 0, 4096), (5, 4, 3), (4096, 3, None)]
)
def test_a_call_of_a_node_is_held_to_the_limits(size: int, buffers: int, limit: int | None) -> None:
    limits = Limits(request_bytes=4096, result_bytes=4096, buffers=3)
    error = size_refusal(limits, size=size, buffers=buffers)
    assert (None if error is None else error.details.limit) == limit
