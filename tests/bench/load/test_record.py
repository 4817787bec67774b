"""The record of a run: what it says, and what it leaves out."""

import msgspec
import pytest
from load_records import MS, imagined, record_of, tally_of

from pronghorn.bench.load.histogram import Histogram
from pronghorn.bench.load.page import page
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import INTERRUPTED, Record, broker_view, is_shown, read_record
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.statistics import Durations, NodeStatistics, Recent, Statistics


def test_percentile_with_too_few_calls_beyond_is_left_out() -> None:
    record = imagined(rate=1000, duration_s=4)
    assert [each.percent for each in record.latency.percentiles] == [50, 90, 95, 97.5, 99]
    assert [each.beyond for each in record.latency.percentiles] == [2000, 400, 200, 100, 40]
    assert record.latency.at(99.9) is None
    assert is_shown(99.99, 100_000)
    assert not is_shown(99.99, 99_999)


def test_known_distribution_is_found_again() -> None:
    record = imagined(median_ms=2, duration_s=20, lag_ms=0)
    assert record.latency.at(50) == pytest.approx(2 * MS, rel=0.03)
    assert record.latency.at(99) == pytest.approx(2 * MS * 6.644, rel=0.06)  # log2 of 100


def test_rates_and_counts() -> None:
    record = imagined(failing=0.1)
    assert record.offered_per_s == 1000
    assert record.counts["planned"] == record.counts["sent"] == 4000
    assert record.counts["results"] + record.counts["errors"] == 4000
    assert record.errors == {"NODE_ERROR": record.counts["errors"]}
    assert record.latency.count == record.counts["results"]
    assert sum(each.answered for each in record.intervals) == 4000
    drained = record.intervals[-1]
    assert record.achieved_per_s == (record.counts["results"] - drained.answered) / 4
    assert sum(each.seconds for each in record.intervals) == pytest.approx(4)


def stopped(ran_s: float) -> Record:
    """Make a record of a run of 4 s at 100/s that was ended before its time."""
    plan = Plan(rate=100, duration_s=4, warmup_s=1)
    tally = tally_of(plan)
    end_ns = round((1 + ran_s) * 1e9)
    for planned_ns in plan.times_ns():
        if planned_ns >= end_ns:
            tally.on_stopped(end_ns)
            tally.on_answered(planned_ns - 10 * MS, planned_ns, planned_ns + MS, 0, None)
            break
        tally.on_sent(planned_ns, planned_ns, held_back=False)
        if planned_ns < end_ns - 10 * MS:
            tally.on_answered(planned_ns, planned_ns, planned_ns + MS, 0, None)
    return record_of(tally, plan, ran_s=ran_s, troubles=[f"{INTERRUPTED}, after {ran_s} s"])


@pytest.mark.parametrize(("ran_s", "shown"), [(1.7, 17), (1.73, 17), (1.76, 18), (3.999, 40)])
def test_run_that_was_ended_early_is_told_as_far_as_it_went(ran_s: float, shown: int) -> None:
    record = stopped(ran_s)
    assert record.is_interrupted
    assert record.offered_per_s == pytest.approx(100, rel=0.01)
    assert record.achieved_per_s == pytest.approx(100, rel=0.02)
    *intervals, drain = record.intervals
    assert len(intervals) == shown
    assert sum(each.seconds for each in intervals) == pytest.approx(ran_s)
    assert sum(each.answered for each in record.intervals) == record.counts["results"]
    assert (drain.at_s, drain.seconds, drain.answered) == (ran_s, 0, record.counts["drained"])
    assert page(record)


def test_run_that_was_ended_in_its_warm_up_has_no_rate() -> None:
    plan = Plan(rate=100, duration_s=4, warmup_s=1)
    record = record_of(tally_of(plan), plan, ran_s=0.0, troubles=[INTERRUPTED])
    assert (record.offered_per_s, record.achieved_per_s) == (0, 0)
    assert [(each.at_s, each.seconds) for each in record.intervals] == [(0, 0)]
    assert page(record)


def test_intervals_together_are_the_whole() -> None:
    record = imagined()
    merged = Histogram()
    for interval in record.intervals:
        merged.add(Histogram.decode(interval.latency))
    assert merged.counts == Histogram.decode(record.latency.histogram).counts


@pytest.mark.parametrize(("cpu", "lag_ms"), [(0.95, 0.05), (0.1, 20.0)])
def test_saturated_generator_makes_a_run_invalid(cpu: float, lag_ms: float) -> None:
    record = imagined(cpu=cpu, lag_ms=lag_ms)
    assert not record.valid
    assert "generator saturated" in record.problems[0]
    assert imagined().valid


def test_generator_that_gave_up_makes_a_run_invalid() -> None:
    plan = Plan(rate=10, duration_s=1)
    tally = tally_of(plan)
    tally.on_event(0, "the generator fell behind its own schedule: 5 calls were not sent")
    assert not record_of(tally, plan).valid


def test_reading_restores_what_was_written() -> None:
    record = imagined(failing=0.01)
    assert read_record(msgspec.json.encode(record), "a.json") == record


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"a\.json is no record"):
        read_record(content, "a.json")


def test_other_format_is_refused() -> None:
    record = msgspec.structs.replace(imagined(), format="pronghorn-load/0")
    with pytest.raises(InvalidArgumentError, match="format"):
        read_record(msgspec.json.encode(record), "a.json")


def test_brokers_view_is_what_it_counted_meanwhile() -> None:
    def seen(calls: int, *buckets: tuple[int, int], epoch: str = "e") -> Statistics:
        node = NodeStatistics(
            name="nodes.add",
            calls=calls,
            errors={"NODE_ERROR": calls // 100},
            run=Durations(buckets=buckets),
            recent=Recent(0.0),
        )
        return Statistics(epoch=epoch, pid=1, nodes=(node,))

    before, after = seen(100, (10, 100)), seen(300, (10, 199), (500, 101))
    (node,) = broker_view(before, after, ["add"])
    assert (node.calls, node.run_p50_ns, node.run_p99_ns) == (200, 500, 500)
    assert node.errors == {"NODE_ERROR": 2}
    assert broker_view(before, after, ["other"]) == []
    assert broker_view(before, seen(300, epoch="another"), ["add"]) == []
