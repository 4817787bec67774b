"""Mirror of broker/statistics.py, and of how the core counts: what a call leaves in the numbers."""

from dataclasses import asdict

import pytest
from core_driver import ADD, PARAMS, PEER, SLEEP, VALUE, Driver, assigned

from pronghorn.broker.events import PeerGone, TableKnown, WorkerGone
from pronghorn.broker.statistics import STEP_S, Counters, NodeCounts, Refusals, Steps
from pronghorn.broker.verdicts import Overload
from pronghorn.broker.wire.errors import NO_DETAILS, ErrorDetails, NotFoundError
from pronghorn.broker.wire.link import Done, Failed
from pronghorn.broker.wire.messages import Call, Cancel, Options
from pronghorn.broker.wire.statistics import NodeStatistics
from pronghorn.broker.wire.table import NodeInfo, NodeTable

MS = 1_000_000


def told(counts: NodeCounts, since: float = 0.0) -> NodeStatistics:
    return counts.snapshot("m.add", since=since, held=0, quarantined=False, estimate_ns=None)


def test_counting_begins_at_nothing() -> None:
    counters = Counters()
    assert set(asdict(counters).values()) == {0}
    counters.completed += 1
    assert counters.completed == 1


def test_refusals_have_a_reason() -> None:
    counters = Counters()
    refusals = Refusals(counters)
    refusals.add(NotFoundError("no such node"))
    refusals.add(Overload("queue_bytes", "full", NO_DETAILS))
    refusals.add(Overload("queue_bytes", "full", NO_DETAILS))
    assert refusals.by_reason == {"not_found": 1, "queue_bytes": 2}
    assert counters.refused == 3


def test_who_did_not_wait_counts_with_no_time_in_the_queue() -> None:
    counts = NodeCounts()
    counts.accepted, counts.queued = 10, 1
    counts.waited(0.005)
    queue = told(counts).queue
    assert (queue.count, queue.buckets[0], queue.p50_ns) == (9, (0, 8), 0)
    assert queue.p99_ns == pytest.approx(5 * MS, rel=1 / 16)


def test_what_is_recent_leaves_out_what_is_older() -> None:
    counts = NodeCounts()
    counts.accepted = 1
    counts.run.record(MS)
    counts.failed("NODE_ERROR")
    assert (told(counts).recent.calls, told(counts).recent.errors) == (1, 1)
    counts.step()
    assert told(counts).recent.calls == 1, "it reaches back to the begin of the step before"
    counts.accepted = 2
    counts.run.record(9)
    counts.step()
    recent = told(counts, since=3.0).recent
    assert (recent.since, recent.calls, recent.errors, recent.run_p99_ns) == (3.0, 1, 0, 9)
    counts.step()
    assert told(counts).recent.calls == 0
    assert told(counts).calls == 2


def test_steps_follow_the_clock() -> None:
    steps = Steps(100.0)
    assert (steps.over(100.0 + STEP_S - 0.1), steps.since) == (0, 100.0)
    assert (steps.over(101.0 + STEP_S), steps.since) == (1, 100.0)
    assert (steps.over(102.0 + 2 * STEP_S), steps.since) == (1, 101.0 + STEP_S)
    assert (steps.over(1000.0), steps.since) == (2, 1000.0), "all that was counted is too old"


# --- the core -----------------------------------------------------------------------------------


def test_a_call_leaves_its_run_time(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS)))
    held = serving.core.statistics(serving.now)
    assert (held.nodes[ADD].held, held.workers[0].held, held.workers[0].served) == (1, 1, 0)
    serving.work(Done(run.token, VALUE, 9))
    statistics = serving.core.statistics(serving.now)
    node = statistics.nodes[ADD]
    assert (node.accepted, node.calls, node.held, node.errors) == (1, 1, 0, {})
    assert node.run.buckets == ((9, 1),)
    assert node.queue.buckets == ((0, 1),)
    assert (statistics.workers[0].held, statistics.workers[0].served) == (0, 1)
    assert statistics.workers[0].started_at == 1000.0
    assert statistics.nodes[SLEEP].calls == 0


def test_the_time_in_the_queue_is_counted_once_a_request(driver: Driver) -> None:
    driver.say(Call(5, "m.add", PARAMS))
    assert driver.core.statistics(driver.now).nodes[ADD].queued == 1
    driver.now += 0.010
    run = assigned(driver.start_worker())
    node = driver.core.statistics(driver.now).nodes[ADD]
    assert (node.queued, node.queue.count) == (0, 1)
    assert node.queue.p50_ns == pytest.approx(10 * MS, rel=1 / 16)
    driver.start_worker(2)
    driver.do(WorkerGone(1, "signal 9 (SIGKILL)"))  # it had not begun, so another runs it
    assert driver.core.statistics(driver.now).nodes[ADD].queue.count == 1
    driver.work(Done(run.token + 1, VALUE, 9), 2)
    assert driver.core.statistics(driver.now).nodes[ADD].queue.count == 1


def test_who_gives_up_in_the_queue_has_waited(driver: Driver) -> None:
    driver.say(Call(5, "m.add", PARAMS))
    driver.now += 0.010
    driver.say(Cancel(5))
    node = driver.core.statistics(driver.now).nodes[ADD]
    assert (node.queued, node.queue.count, node.errors) == (0, 1, {"CANCELLED": 1})
    assert node.queue.p50_ns > 9 * MS


def test_errors_are_counted_by_their_codes(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    serving.work(Failed(run.token, "INVALID_ARGUMENT", "no", ErrorDetails()))
    run = assigned(serving.say(Call(2, "m.add", PARAMS, Options(timeout_ms=5))))
    serving.begin(run)
    serving.tick(serving.now + 1)
    serving.work(Done(run.token, VALUE, 10))  # too late
    run = assigned(serving.say(Call(3, "m.add", PARAMS)))
    serving.begin(run)
    serving.do(WorkerGone(1, "signal 11 (SIGSEGV)"))
    statistics = serving.core.statistics(serving.now)
    node = statistics.nodes[ADD]
    codes = {"INVALID_ARGUMENT": 1, "DEADLINE_EXCEEDED": 1, "WORKER_LOST": 1}
    assert (node.errors, node.failed, node.calls) == (codes, 3, 0)
    assert statistics.counters["late_results"] == 1


def test_refusals_are_told_by_reason(serving: Driver) -> None:
    serving.say(Call(1, "no_such"))
    serving.hello()
    for id_ in range(5):
        serving.say(Call(id_, "m.sleep", PARAMS))
    statistics = serving.core.statistics(serving.now)
    assert statistics.refused == {"not_found": 1, "grant_requests": 1}
    assert statistics.counters["refused"] == 2


def test_what_is_recent_in_the_core(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS)))
    serving.work(Done(run.token, VALUE, 9))
    serving.core.step(serving.now)
    assert serving.core.statistics(serving.now).nodes[ADD].recent.since == 1000.0
    assert serving.core.statistics(serving.now).nodes[ADD].recent.calls == 1
    serving.core.step(serving.now + 3 * STEP_S)
    node = serving.core.statistics(serving.now).nodes[ADD]
    assert (node.recent.since, node.recent.calls, node.calls) == (1000.0 + 3 * STEP_S, 0, 1)


def test_cancels_of_a_client_that_is_gone(serving: Driver) -> None:
    serving.say(Call(5, "m.sleep", PARAMS))
    serving.do(PeerGone(PEER))
    assert serving.core.statistics(serving.now).nodes[SLEEP].errors == {"CANCELLED": 1}


def test_a_node_is_in_quarantine_until_that_is_over(serving: Driver) -> None:
    serving.core._life.catalog.nodes[ADD].refused_until = serving.now + 2
    assert serving.core.statistics(serving.now).nodes[ADD].quarantined
    assert not serving.core.statistics(serving.now + 2).nodes[ADD].quarantined


def test_a_node_without_a_worker_that_has_its_labels_is_not_in_quarantine() -> None:
    driver = Driver()
    driver.do(TableKnown(NodeTable((NodeInfo("m.gpu", "inline", labels=("gpu",)),), "other")))
    assert not driver.core.statistics(driver.now).nodes[0].quarantined
