"""Mirror of broker/retries.py, and of the core's part in it."""

from itertools import pairwise
from math import inf
from typing import Any

import pytest
from core_driver import JSON, NOTIFICATION, PARAMS, PEER, VALUE, Driver, assigned, error_of

from pronghorn.broker.events import Assign, PeerGone, Send, WorkerGone
from pronghorn.broker.retries import BUDGET_MAX, BUDGET_START, RetryBudget, retry_delay_s
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import ChunkDone, Done, Failed
from pronghorn.broker.wire.messages import Call, Cancel, MapChunk, Options, Result
from pronghorn.broker.wire.table import RetryPolicy

POLICY = RetryPolicy(attempts=5, backoff_s=0.1, backoff_max_s=0.3)
KILLED = "signal 9 (SIGKILL)"


def no(run: Any, *, retryable: bool | None = True) -> Failed:
    return Failed(run.token, "NODE_ERROR", "no", ErrorDetails(None, retryable))


def begun(driver: Driver, worker_id: int = 1, timeout_ms: float | None = None) -> Any:
    run = assigned(driver.say(Call(1, "m.again", PARAMS, Options(timeout_ms=timeout_ms))))
    assert driver.begin(run, worker_id)
    return run


def retry_at(driver: Driver) -> float:
    """Tell when the next attempt is due, which the core's next tick does not come after."""
    due = driver.core._life.delayed.next_due
    assert driver.core.next_due() <= due
    return due


@pytest.mark.parametrize(("attempts", "longest"), [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3)])
def test_the_delay_doubles_up_to_its_limit(attempts: int, longest: float) -> None:
    delays = [retry_delay_s(POLICY, attempts, number) for number in range(1000)]
    known = [delay for delay in delays if delay is not None]
    assert len(known) == 1000
    assert longest / 2 <= min(known) < longest * 0.51
    assert longest * 0.99 < max(known) <= longest


def test_neighbours_are_spread() -> None:
    delays = sorted(retry_delay_s(POLICY, 1, number) or 0.0 for number in range(100, 132))
    gaps = [after - before for before, after in pairwise(delays)]
    assert max(gaps) < 0.01


def test_there_is_a_last_attempt() -> None:
    assert retry_delay_s(POLICY, 5, 1) is None


def test_the_budget_is_earned() -> None:
    budget = RetryBudget()
    assert [budget.take() for _ in range(int(BUDGET_START) + 1)] == [True] * 10 + [False]
    for _ in range(5):
        budget.succeeded()
    assert [budget.take(), budget.take()] == [True, False]
    for _ in range(10_000):
        budget.succeeded()
    assert budget.tokens == BUDGET_MAX


def test_a_lost_call_runs_again_after_a_delay(serving: Driver) -> None:
    run = begun(serving)
    assert serving.do(WorkerGone(1, KILLED)) == []
    serving.start_worker(2)
    due = retry_at(serving)
    assert serving.now + 0.5 <= due <= serving.now + 1.0
    again = assigned(serving.tick(due))
    assert (again.params, again.node) == (PARAMS, run.node)
    assert again.token != run.token
    serving.begin(again, 2)
    assert serving.work(Done(again.token, VALUE, 1), 2) == [
        Send(PEER, Result(1, VALUE), batched=True)
    ]
    assert serving.count("retried") == 1
    assert retry_at(serving) == inf


def test_the_last_failure_is_told(serving: Driver) -> None:
    run = begun(serving)
    for _ in range(2):
        assert serving.work(no(run)) == []
        run = assigned(serving.tick(retry_at(serving)))
        serving.begin(run)
    error = error_of(serving.work(no(run)))
    assert (error.code, error.details.retryable) == ("NODE_ERROR", True)
    assert (serving.count("retried"), serving.count("failed")) == (2, 1)


def test_other_failures_are_told_at_once(serving: Driver) -> None:
    run = begun(serving)
    assert error_of(serving.work(no(run, retryable=None))).code == "NODE_ERROR"
    serving.say(Call(2, "m.add"))
    assert serving.count("retried") == 0


def test_a_node_without_a_policy_is_not_tried_again(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add")))
    serving.begin(run)
    assert error_of(serving.work(no(run))).code == "NODE_ERROR"


def test_nothing_is_tried_that_would_be_late(serving: Driver) -> None:
    begun(serving, timeout_ms=400.0)
    assert error_of(serving.do(WorkerGone(1, KILLED))).code == "WORKER_LOST"


@pytest.mark.parametrize("where", ["delayed", "queued", "held"])
def test_what_ran_before_is_not_told_to_be_not_started(serving: Driver, where: str) -> None:
    run = begun(serving)
    assert serving.work(no(run)) == []
    if where != "delayed":
        if where == "queued":
            serving.say(Call(2, "m.add"))
        serving.tick(retry_at(serving))
    (cancelled,) = [one for one in serving.say(Cancel(1)) if isinstance(one, Send)]
    assert cancelled.message.details.outcome == "maybe_executed"  # type: ignore[union-attr]
    assert serving.tick(serving.now + 10.0) == []


def test_a_gone_client_s_calls_are_not_tried_again(serving: Driver) -> None:
    run = begun(serving)
    assert serving.work(no(run)) == []
    assert serving.do(PeerGone(PEER)) == []
    assert serving.tick(serving.now + 10.0) == []
    assert serving.core._life.delayed.items() == []


def test_a_retried_chunk_does_not_tell_what_did_not_run(driver: Driver) -> None:
    """Its first attempt had come further than the one that its caller was told of."""
    driver.start_worker(1)
    run = assigned(driver.say(MapChunk(1, "m.again", PARAMS)))
    worker_id = 1
    for items in (5, 4, 2):
        driver.begin(run, worker_id)
        driver.pages[worker_id].put(run.slot, *range(items))
        lost = driver.do(WorkerGone(worker_id, KILLED))
        worker_id += 1
        driver.start_worker(worker_id)
        if lost:
            break
        run = assigned(driver.tick(retry_at(driver)))
    assert error_of(lost).details.outcome == "maybe_executed"


def test_chunks_that_end_well_earn_retries_too(serving: Driver) -> None:
    node = serving.core._life.catalog.nodes[3]
    run = assigned(serving.say(MapChunk(1, "m.again", PARAMS)))
    serving.begin(run)
    serving.work(ChunkDone(run.token, VALUE, 1, 2))
    assert node.budget.tokens > BUDGET_START


def test_a_node_whose_budget_is_gone_is_not_tried_again(serving: Driver) -> None:
    serving.core._life.catalog.nodes[3].budget.tokens = 0.5
    run = begun(serving)
    assert error_of(serving.work(no(run))).code == "NODE_ERROR"


def test_those_that_died_together_come_back_one_by_one(serving: Driver) -> None:
    serving.hello()
    for id_ in range(4):
        run = assigned(serving.say(Call(id_, "m.retry")))
        serving.begin(run)
    serving.do(WorkerGone(1, KILLED))
    serving.start_worker(2)
    dues = set()
    for _ in range(4):
        dues.add(retry_at(serving))
        serving.tick(retry_at(serving))
    assert len(dues) == 4


def test_json_calls_and_notifications_are_tried_again(serving: Driver) -> None:
    for origin, more in ((JSON, {"id": 5}), (NOTIFICATION, {})):
        run = assigned(serving.json("m.again", origin=origin, **more))
        serving.begin(run)
        assert serving.work(no(run)) == []
        again = assigned(serving.tick(retry_at(serving)))
        assert (again.codec, again.params) == (run.codec, run.params)
        serving.begin(again)
        done = serving.work(Done(again.token, type(VALUE)(b"\xc4\x013"), 1))
        assert [one for one in done if isinstance(one, Assign)] == []
        assert bool(done) is True
