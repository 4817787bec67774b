"""Mirror of broker/lifecycle.py: how requests end before their result."""

from math import inf
from typing import Any

import pytest
from core_driver import ADD, GRACE_S, OTHER, PARAMS, PEER, VALUE, Driver, assigned, cancelled
from requests_of import SLOW, request, session

from pronghorn.broker.events import Assign, Command, Kill, PeerGone, Send, WorkerGone
from pronghorn.broker.lifecycle import Lifecycle
from pronghorn.broker.requests import Session
from pronghorn.broker.sessions import Sessions
from pronghorn.broker.window import BUDGET_NS, LIGHT_BUDGET_NS, LIGHT_REQUESTS, LIGHT_S, STALL_S
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import DEFAULT_LIMITS
from pronghorn.broker.wire.link import (
    Alive,
    AskAlive,
    CancelRun,
    ChunkDone,
    Done,
    Failed,
    Skipped,
)
from pronghorn.broker.wire.messages import (
    NIL,
    Ack,
    Call,
    Cancel,
    Error,
    Goodbye,
    MapChunk,
    Options,
    Result,
)


def test_what_waits_is_cancelled_at_once(driver: Driver) -> None:
    driver.say(Call(5, "m.add"))
    assert driver.say(Cancel(5)) == [Send(PEER, cancelled(5, "m.add", "not_started"))]
    assert driver.core.statistics(driver.now).queued == 0
    assert driver.start_worker() == []


def test_a_blocked_worker_is_asked_whether_it_is_still(serving: Driver) -> None:
    """It had begun late, and then had nothing to say: it got nothing any more, for ever."""
    sleeping = assigned(serving.say(Call(1, "m.sleep")))
    (asked,) = serving.tick(serving.now + STALL_S)
    assert asked == Assign(1, AskAlive())
    assert serving.begin(sleeping)
    assert serving.say(Call(2, "m.add")) == []
    assert assigned(serving.work(Alive())).node == ADD


def test_a_stranger_may_cancel_the_last_that_it_has_open(driver: Driver) -> None:
    """The broker died: the end of its last request had removed the stranger's session already."""
    driver.say(Call(5, "m.add"))
    driver.say(Cancel(5))
    assert driver.core.statistics(driver.now).sessions == 0
    driver.say(Call(5, "m.add"))
    driver.say(Goodbye())
    assert driver.core.statistics(driver.now).sessions == 0


def test_a_call_and_its_cancel_may_come_together(driver: Driver) -> None:
    for id_ in range(1000):
        assert driver.say(Call(id_, "m.add"), Cancel(id_)) == [
            Send(PEER, cancelled(id_, "m.add", "not_started"))
        ]
    assert driver.core.statistics(driver.now).queued == 0


def test_what_a_worker_has_not_begun_is_taken_back(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add")))
    assert serving.say(Cancel(5)) == [
        Send(PEER, cancelled(5, "m.add", "not_started"), batched=True)
    ]
    assert not serving.begin(run)
    assert serving.work(Skipped(run.token)) == []
    assert serving.core.statistics(serving.now).workers[0].held == 0


def test_what_has_begun_is_cancelled_where_it_runs(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "sleep")))
    serving.begin(run)
    assert serving.say(Cancel(5)) == [
        Assign(1, CancelRun(run.token)),
        Send(PEER, cancelled(5, "m.sleep", "maybe_executed"), batched=True),
    ]
    # It is held until the worker's last word, which nobody waits for.
    assert serving.core.statistics(serving.now).workers[0].held == 1
    assert serving.say(Cancel(5)) == []
    details = ErrorDetails(outcome="maybe_executed")
    assert serving.work(Failed(run.token, "CANCELLED", "cancelled", details)) == []
    assert serving.core.statistics(serving.now).workers[0].held == 0
    assert (serving.count("late_results"), serving.count("failed")) == (1, 1)


@pytest.mark.parametrize("chunk", [False, True])
def test_a_result_after_the_cancel_is_dropped_but_measured(serving: Driver, chunk: bool) -> None:
    message = MapChunk(5, "m.add", PARAMS) if chunk else Call(5, "m.add", PARAMS)
    run = assigned(serving.say(message))
    serving.begin(run)
    serving.say(Cancel(5))
    word = ChunkDone(run.token, VALUE, 1000, 1) if chunk else Done(run.token, VALUE, 1000)
    assert serving.work(word) == []
    assert serving.count("late_results") == 1
    node = serving.core.statistics(serving.now).nodes[ADD]
    assert (node.calls, node.estimate_ns) == (0, 1000.0)


def test_a_skip_after_the_cancel_is_the_end_of_it(serving: Driver) -> None:
    """Both sides saw each other at the claim: it never ran, but the caller was told it may have."""
    run = assigned(serving.say(Call(5, "m.add")))
    serving.begin(run)
    serving.say(Cancel(5))
    assert serving.work(Skipped(run.token)) == []
    assert serving.core.statistics(serving.now).queued == 0


def test_a_cancel_of_nothing_is_nothing(serving: Driver) -> None:
    assert serving.say(Cancel(5), Cancel(None)) == []
    assert serving.say(Cancel(5), peer=OTHER) == []


def test_nobody_cancels_what_is_another_client_s(serving: Driver) -> None:
    serving.say(Call(5, "sleep"))
    assert serving.say(Cancel(5), peer=OTHER) == []


def test_a_deadline_ends_what_waits(driver: Driver) -> None:
    driver.say(Call(5, "m.add", NIL, Options(timeout_ms=50.0)))
    assert driver.core.next_due() == 1000.05
    assert driver.tick(1000.049) == []
    details = ErrorDetails(outcome="not_started", node="m.add")
    error = Error(5, "DEADLINE_EXCEEDED", "m.add: the deadline has passed", details)
    assert driver.tick(1000.05) == [Send(PEER, error)]
    assert driver.core.next_due() == inf


def test_a_deadline_ends_what_runs(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "sleep", NIL, Options(timeout_ms=50.0))))
    assert run.left_ms == pytest.approx(50.0)
    serving.begin(run)
    cancel, send = serving.tick(1000.05)
    assert cancel == Assign(1, CancelRun(run.token))
    assert isinstance(send, Send)
    assert isinstance(send.message, Error)
    assert send.message.code == "DEADLINE_EXCEEDED"
    assert send.message.details.outcome == "maybe_executed"


def test_a_worker_is_told_what_is_left_of_the_time(driver: Driver) -> None:
    driver.say(MapChunk(5, "m.add", NIL, Options(timeout_ms=50.0)))
    driver.now += 0.02
    assert assigned(driver.start_worker()).left_ms == pytest.approx(30.0)


def test_a_deadline_of_what_has_ended_is_nothing(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", NIL, Options(timeout_ms=50.0))))
    serving.work(Done(run.token, VALUE, 1000))
    assert serving.tick(1000.05) == []


def test_calls_with_far_deadlines_leave_nothing_behind(serving: Driver) -> None:
    """They were kept, bodies and all, until their deadlines."""
    options = Options(timeout_ms=3_600_000.0)
    for id_ in range(1500):
        run = assigned(serving.say(Call(id_, "m.add", PARAMS, options), Ack(id_)))
        serving.work(Done(run.token, VALUE, 1000))
    deadlines = serving.core._life.deadlines
    assert len(deadlines) <= 1024
    assert all(request.params == NIL for _, _, request in deadlines._heap)


# --- workers that go on --------------------------------------------------------------------------

STUCK = "m.add went on after it was given up"


def begin_call(driver: Driver, id_: int, node: str = "m.add", **options: Any) -> Any:
    """Have the worker begin a call."""
    run = assigned(driver.say(Call(id_, node, NIL, Options(**options) if options else None)))
    assert driver.begin(run)
    return run


def kills(commands: list[Command]) -> list[Command]:
    return [command for command in commands if isinstance(command, Kill)]


def test_a_worker_that_goes_on_after_a_deadline_is_killed(serving: Driver) -> None:
    begin_call(serving, 5, timeout_ms=50.0)
    cancel, error = serving.tick(1000.05)  # the caller does not wait for the grace time
    assert isinstance(cancel, Assign)
    assert isinstance(error, Send)
    assert serving.core.next_due() == 1000.05 + GRACE_S
    assert serving.tick(1000.05 + GRACE_S - 0.001) == []
    assert serving.tick(1000.05 + GRACE_S) == [Kill(1, STUCK)]
    assert serving.count("stuck") == 1
    assert serving.core.statistics(serving.now).workers[0].state == "condemned"
    assert serving.do(WorkerGone(1, "signal 9 (SIGKILL)")) == []
    assert serving.core.next_due() == inf


def test_a_worker_that_goes_on_after_a_cancel_is_killed(serving: Driver) -> None:
    begin_call(serving, 5)
    serving.say(Cancel(5))
    assert kills(serving.tick(1000.0 + GRACE_S)) == [Kill(1, STUCK)]


def test_a_worker_that_works_for_a_client_that_is_gone_is_killed(serving: Driver) -> None:
    begin_call(serving, 5)
    serving.do(PeerGone(PEER))
    assert kills(serving.tick(1000.0 + GRACE_S)) == [Kill(1, STUCK)]


def test_a_worker_is_killed_once(serving: Driver) -> None:
    """A call may have a deadline left when it is cancelled."""
    begin_call(serving, 5, timeout_ms=GRACE_S * 2000)
    serving.say(Cancel(5))
    assert kills(serving.tick(1000.0 + GRACE_S)) == [Kill(1, STUCK)]
    assert serving.tick(1000.0 + GRACE_S * 2) == []
    assert serving.count("stuck") == 1


def test_a_deadline_that_comes_after_the_cancel_does_not_shorten_the_grace(serving: Driver) -> None:
    begin_call(serving, 5, timeout_ms=100.0)
    serving.say(Cancel(5))
    assert kills(serving.tick(1000.1)) == []
    assert kills(serving.tick(1000.0 + GRACE_S)) == [Kill(1, STUCK)]


def test_a_worker_that_is_done_within_the_grace_lives_on(serving: Driver) -> None:
    run = begin_call(serving, 5)
    serving.say(Cancel(5))
    serving.work(Done(run.token, VALUE, 1000))
    assert serving.tick(1000.0 + GRACE_S) == []
    assert serving.core.next_due() == inf
    assert assigned(serving.say(Call(6, "m.add"))).node == ADD


def test_what_was_not_begun_kills_nobody(serving: Driver) -> None:
    serving.say(Call(5, "m.add"))
    serving.say(Cancel(5))
    assert serving.tick(1000.0 + GRACE_S) == []


@pytest.mark.parametrize("node", ["sleep", "thread"])
def test_what_runs_beside_others_is_counted_and_left_alone(serving: Driver, node: str) -> None:
    run = begin_call(serving, 5, node)
    serving.say(Cancel(5))
    assert serving.tick(1000.0 + GRACE_S) == []
    assert serving.count("stuck") == 1
    assert assigned(serving.say(Call(6, "m.add"))).node == ADD
    assert serving.work(Done(run.token, VALUE, 1000)) == []


@pytest.mark.parametrize("node", ["m.add", "sleep", "thread"])
def test_a_chunk_has_a_worker_for_itself_and_is_not_left_alone(serving: Driver, node: str) -> None:
    serving.begin(assigned(serving.say(MapChunk(5, node, PARAMS))))
    serving.say(Cancel(5))
    assert len(kills(serving.tick(1000.0 + GRACE_S))) == 1


def test_what_a_stuck_worker_has_not_begun_runs_elsewhere(serving: Driver) -> None:
    """At once, not when the worker is dead; and what it says until then harms nobody."""
    serving.make_quick()
    stuck = begin_call(serving, 1, timeout_ms=50.0)
    waits = assigned(serving.say(Call(2, "m.add", PARAMS)))
    serving.tick(1000.05)
    kill, again = (*serving.tick(1000.05 + GRACE_S), *serving.start_worker(2))
    assert kill == Kill(1, STUCK)
    assert isinstance(again, Assign)
    assert (again.worker_id, again.message.node) == (2, ADD)
    assert not serving.begin(waits)
    assert serving.work(Done(stuck.token, VALUE, 1000)) == []
    assert serving.work(Skipped(waits.token)) == []
    assert serving.say(Call(3, "sleep"), Call(4, "m.add"))[0].worker_id == 2
    assert serving.do(WorkerGone(1, "signal 9 (SIGKILL)")) == []
    assert serving.work(Done(again.message.token, VALUE, 1000), 2)[0] == Send(
        PEER, Result(2, VALUE), batched=True
    )


def test_what_a_stuck_worker_has_begun_besides_is_lost_with_it(serving: Driver) -> None:
    beside = begin_call(serving, 1, "thread")
    begin_call(serving, 2, timeout_ms=50.0)
    serving.tick(1000.05)
    serving.tick(1000.05 + GRACE_S)
    (lost,) = serving.do(WorkerGone(1, "signal 9 (SIGKILL)"))
    assert isinstance(lost, Send)
    assert isinstance(lost.message, Error)
    assert (lost.message.id, lost.message.code) == (1, "WORKER_LOST")
    assert lost.message.details.outcome == "maybe_executed"
    assert serving.work(Done(beside.token, VALUE, 1000)) == []


# --- light clients beside heavy ones ------------------------------------------------------------


def test_workers_hold_less_ahead_while_a_light_client_waits_beside_a_heavy_one() -> None:
    life = Lifecycle(Sessions(DEFAULT_LIMITS, 10), GRACE_S)
    heavy, light = session(b"heavy"), session(b"light")
    for _ in range(LIGHT_REQUESTS + 1):
        life.admit(request(SLOW, heavy), 0.0)

    def budget_after_a_request_of(client: Session, now: float) -> float:
        life.admit(request(SLOW, client), now)
        return life.placement.budget_ns

    assert budget_after_a_request_of(heavy, 1.0) == BUDGET_NS
    assert budget_after_a_request_of(light, 2.0) == LIGHT_BUDGET_NS
    assert budget_after_a_request_of(heavy, 2.0 + LIGHT_S) == LIGHT_BUDGET_NS
    assert budget_after_a_request_of(heavy, 2.1 + LIGHT_S) == BUDGET_NS
