"""Whole runs: what is measured is what the service has done, and what went wrong is told."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from bare_service import bare_service
from pools import served

from pronghorn.bench.load.mix import Kind, Params, make_kind
from pronghorn.bench.load.orders import Protocol
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import Record
from pronghorn.bench.load.session import Job, Live, check, run
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    InvalidArgumentError,
    NotFoundError,
)
from pronghorn.client.pool import Pool

MS = 1_000_000

pytestmark = pytest.mark.slow


def nobody(live: Live) -> None:
    """Watch a run as one who is not there."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with served(tmp_path_factory.mktemp("load")) as pool:
        yield pool


def frames(endpoint: str, plan: Plan, protocol: Protocol = "req") -> Job:
    kinds = (Kind("frame", 1.0, (b"hello",)),)
    return Job(plan=plan, kinds=kinds, protocol=protocol, endpoint=endpoint, command="a test")


def calls(pool: Pool, plan: Plan, node: str = "add", params: Params | None = None) -> Job:
    kinds = (make_kind(node, 1, [{"a": 1, "b": 2} if params is None else params], 1),)
    return Job(
        plan=plan, kinds=kinds, protocol="pronghorn", endpoint=pool.endpoint, command="a test"
    )


def milliseconds(record: Record, percent: float) -> float:
    found = record.latency.at(percent)
    assert found is not None
    return found / MS


def test_stall_of_1_s_in_5_s_is_seen_as_it_is() -> None:
    # A fifth of the calls come while it stands still, and wait from 0 to 1,000 ms. A closed loop
    # would see one call of 200 in which nothing else happens.
    with bare_service(stalls=True) as endpoint:
        record = run(frames(endpoint, Plan(rate=200, duration_s=5, warmup_s=0.5)), nobody)
    assert record.counts["results"] == record.counts["planned"] == 1000
    for percent, expected_ms in ((90, 500), (95, 750), (97.5, 875), (99, 950)):
        assert milliseconds(record, percent) == pytest.approx(expected_ms, rel=0.1)


@pytest.mark.parametrize("protocol", ["req", "dealer"])
def test_known_delays_are_found_again(protocol: Protocol) -> None:
    # Without an envelope replies are taken in order, so there all delays are the same.
    slow_s = 1.0 if protocol == "req" else 0.2
    with bare_service(lambda number: 0.2 if number % 20 else slow_s) as endpoint:
        plan = Plan(rate=300, duration_s=3, warmup_s=0.2, clients=3)
        record = run(frames(endpoint, plan, protocol), nobody)
    assert record.counts["results"] == 900
    assert milliseconds(record, 50) == pytest.approx(200, rel=0.2)
    assert milliseconds(record, 97.5) == pytest.approx(slow_s * 1000, rel=0.2)


@pytest.mark.parametrize("duration_s", [0.5, 20.0])
def test_generator_that_cant_keep_up_says_that_its_figures_are_invalid(duration_s: float) -> None:
    # Of the longer run, ended early, it can't even count in time what it has not sent.
    stopped: list[float] = []

    def stop(live: Live) -> None:
        if not stopped and live.elapsed_s > 1:
            stopped.append(live.elapsed_s)
            signal.raise_signal(signal.SIGINT)

    with bare_service() as endpoint:
        plan = Plan(rate=500_000, duration_s=duration_s, warmup_s=0, timeout_s=5)
        record = run(frames(endpoint, plan), stop if duration_s > 1 else nobody)
    assert not record.valid
    assert any("generator saturated" in problem for problem in record.problems)
    if stopped:  # what was due until then was planned
        assert record.offered_per_s == pytest.approx(500_000, rel=0.1)
    else:
        assert record.counts["planned"] == 250_000
        assert record.counts["unsent"] > 0
        assert record.counts["sent"] + record.counts["unsent"] == 250_000


def test_several_generators_send_the_plan_together_as_one_does(pool: Pool) -> None:
    plan = Plan(profile="poisson", rate=400, duration_s=1, warmup_s=0.2, processes=2, clients=3)
    seen: list[Live] = []
    record = run(calls(pool, plan), seen.append)
    planned = sum(at_ns >= 0.2e9 for at_ns in plan.times_ns())
    results = record.counts["results"]
    assert record.counts["planned"] == planned
    assert results == planned or not record.valid  # one that has to give up calls says so
    assert record.latency.count == record.service.count == record.lag.count == results
    assert len(record.generators) == 2
    assert all(each.cpu > 0 for each in record.generators)
    assert seen[-1].answered > 0
    (node,) = record.broker
    assert node.node.endswith(".add")
    assert 0 < node.calls <= planned + record.counts["warmup"]


def test_closed_loop_keeps_so_many_open(pool: Pool) -> None:
    record = run(calls(pool, Plan(closed=4, duration_s=0.5, warmup_s=0.1)), nobody)
    assert record.loop == "closed"
    assert record.offered_per_s is None
    assert record.counts["results"] == record.counts["sent"] > 4
    assert record.latency.percentiles == record.service.percentiles


def test_errors_are_counted_by_code_and_timeouts_with_the_time_they_took(pool: Pool) -> None:
    plan = Plan(rate=20, duration_s=1, warmup_s=0, timeout_s=0.1)
    record = run(calls(pool, plan, "wait_for_ever", []), nobody)
    assert record.errors == {"DEADLINE_EXCEEDED": 20 - record.counts["unsent"]}
    assert milliseconds(record, 50) >= 100
    plan = Plan(rate=20, duration_s=1, warmup_s=0)
    record = run(calls(pool, plan, "divide", {"a": 1, "b": 0}), nobody)
    assert record.errors == {"NODE_ERROR": 20 - record.counts["unsent"]}
    assert record.latency.count == 0


def test_calls_that_are_never_answered_are_counted_when_the_run_ends() -> None:
    with bare_service(answers=False) as endpoint:
        plan = Plan(rate=50, duration_s=0.2, warmup_s=0, timeout_s=0.2)
        record = run(frames(endpoint, plan), nobody)
    assert record.errors["UNANSWERED"] >= 9
    assert record.latency.max_ns >= 1200 * MS


def test_report_comes_though_the_broker_dies(tmp_path: Path) -> None:
    with served(tmp_path) as pool:
        broker = pool.client().stats().pid
        plan = Plan(rate=200, duration_s=2, warmup_s=0.1, timeout_s=1)
        killed: list[float] = []

        def kill(live: Live) -> None:
            if not killed and live.elapsed_s > 0.8:
                os.kill(broker, signal.SIGKILL)
                killed.append(live.elapsed_s)

        record = run(calls(pool, plan), kill)
    assert killed
    assert record.counts["results"] > 50
    failed = record.counts["errors"] + record.counts["unsent"]
    assert record.counts["results"] + failed == record.counts["planned"] == 400
    assert failed > 0
    assert "the connection to the broker was lost" in [what for _, what in record.events]


def test_interrupted_run_is_reported_and_invalid() -> None:
    begun = monotonic()
    interrupted: list[float] = []

    def once(live: Live) -> None:
        if not interrupted and live.elapsed_s > 0.3:
            interrupted.append(live.elapsed_s)
            signal.raise_signal(signal.SIGINT)

    with bare_service() as endpoint:
        record = run(frames(endpoint, Plan(rate=100, duration_s=60, warmup_s=0)), once)
    assert monotonic() - begun < 30
    (problem,) = (each for each in record.problems if "generator" not in each)
    assert problem == f"interrupted before the end of the plan, after {record.ran_s:.1f} s"
    assert 0.3 < record.ran_s < 30
    assert record.offered_per_s == pytest.approx(100, rel=0.1)
    assert record.counts["results"] > 10


def test_wrong_calls_are_found_before_the_run(pool: Pool) -> None:
    plan = Plan(rate=10, duration_s=1)
    assert check(calls(pool, plan)) == []
    with pytest.raises(InvalidArgumentError, match=r"\$\.a"):
        check(calls(pool, plan, params={"a": "x", "b": 2}))
    with pytest.raises(NotFoundError, match="nope"):
        check(calls(pool, plan, "nope"))
    (warning,) = check(calls(pool, plan, "divide", {"a": 1, "b": 0}))
    assert "division by zero" in warning


def test_service_that_is_not_there_is_found_before_the_run() -> None:
    with bare_service(answers=False) as endpoint:
        assert check(frames(endpoint, Plan(rate=1))) == []
        with pytest.raises(BrokerLostError, match="answers a frame of 5 bytes"):
            check(frames(endpoint, Plan(rate=1)))
    with pytest.raises(InvalidArgumentError, match="no endpoint"):
        check(frames("carrier://pigeon", Plan(rate=1)))


def test_broker_that_is_not_there_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    kinds = (make_kind("add", 1, [[1, 2]], 1),)
    job = Job(
        plan=Plan(rate=1),
        kinds=kinds,
        protocol="pronghorn",
        endpoint=f"ipc://{tmp_path}/none.sock",
        command="a test",
    )
    with pytest.raises(BrokerLostError, match="no broker answers"):
        run(job, nobody)
