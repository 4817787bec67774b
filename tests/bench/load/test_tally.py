"""What is counted of which calls."""

import tracemalloc
from random import Random

import msgspec
from load_records import MS, tally_of

from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.tally import Tally, TallyValues, Totals, packed

PLAN = Plan(rate=10, duration_s=1, warmup_s=1)
S = 1000 * MS


def totals_of(tally: Tally) -> Totals:
    return Totals(PLAN, 1, [tally.values()])


def test_warm_up_is_counted_nowhere_else() -> None:
    tally = tally_of(PLAN)
    tally.on_sent(S - 1, S, held_back=True)
    tally.on_answered(S - 1, S, 2 * S, 0, None)
    tally.on_unsent(S - 1)
    totals = totals_of(tally)
    assert totals.counts.pop("warmup_calls") == 1
    assert totals.counts.total() == 0
    assert totals.lag.count == sum(each.count for each in totals.latency) == 0


def test_latency_runs_from_the_planned_time_and_service_from_the_sending() -> None:
    tally = tally_of(PLAN)
    tally.on_sent(S, S + 30 * MS, held_back=False)
    tally.on_answered(S, S + 30 * MS, S + 40 * MS, 0, None)
    totals = totals_of(tally)
    assert totals.latency[0].max_ns == totals.kinds[0].max_ns == 40 * MS
    assert totals.service.max_ns == 10 * MS
    assert totals.lag.max_ns == 30 * MS
    assert totals.counts["late"] == 1


def test_answers_after_the_end_are_the_drain() -> None:
    tally = tally_of(PLAN)
    tally.on_answered(S, S, 2 * S - 1, 0, None)
    tally.on_answered(S, S, 2 * S, 0, None)
    tally.on_answered(S, S, 9 * S, 0, None)
    totals = totals_of(tally)
    assert [each.count for each in totals.latency][-2:] == [1, 2]
    assert totals.counts["drained"] == 2


def test_answers_after_a_stop_are_the_drain_too() -> None:
    tally = tally_of(PLAN)
    tally.on_answered(S, S, S + 350 * MS, 0, None)
    tally.on_stopped(S + 360 * MS)
    tally.on_answered(S, S, S + 370 * MS, 0, None)
    totals = totals_of(tally)
    assert [(at, each.count) for at, each in enumerate(totals.latency) if each.count] == [
        (3, 1),
        (PLAN.intervals, 1),
    ]
    assert totals.counts["drained"] == 1


def test_failures_are_counted_and_only_those_waited_for_have_latencies() -> None:
    tally = tally_of(PLAN)
    tally.on_answered(S, S, S + MS, 0, "RESOURCE_EXHAUSTED")
    tally.on_answered(S, S, S + 500 * MS, 0, "DEADLINE_EXCEEDED")
    totals = totals_of(tally)
    assert sum(each.count for each in totals.latency) == 1
    assert max(each.max_ns for each in totals.latency) == 500 * MS
    assert sum(each.total() for each in totals.errors) == totals.kind_errors[0].total() == 2


def test_several_are_put_together_exactly_as_they_travel() -> None:
    whole = tally_of(PLAN)
    parts = [tally_of(PLAN) for _ in range(2)]
    for number in range(100):
        at = S + number * 9 * MS
        code = "NODE_ERROR" if number % 7 == 0 else None
        for tally in (whole, parts[number % 2]):
            tally.on_sent(at, at + number * 1000, held_back=number % 3 == 0)
            tally.on_answered(at, at + number * 1000, at + number * MS, 0, code)
            tally.on_event(at, str(number))
    sent = [msgspec.msgpack.encode(part.values()) for part in parts]
    merged = Totals(PLAN, 1, [msgspec.msgpack.decode(each, type=TallyValues) for each in sent])
    expected = totals_of(whole)
    for mine, theirs in zip(
        [*merged.latency, *merged.kinds, merged.service, merged.lag],
        [*expected.latency, *expected.kinds, expected.service, expected.lag],
        strict=True,
    ):
        assert packed(mine) == packed(theirs)
    for name in ("errors", "kind_errors", "counts", "events"):
        assert getattr(merged, name) == getattr(expected, name)


def test_counts_take_the_memory_of_the_first_second_all_along() -> None:
    """An hour's growth at 2,000/s, seen in 12 s of calls: as many intervals, other latencies."""
    plan = Plan(rate=2_000, duration_s=24, warmup_s=0)
    assert plan.intervals == 240
    random, tally = Random(1), Tally(plan, 1)
    begun = 12_000 * MS
    tracemalloc.start()
    try:
        for at in range(0, 24_000 * MS, MS):
            if at == begun:
                before, _ = tracemalloc.get_traced_memory()
            tally.on_sent(at, at + random.randrange(MS), held_back=False)
            took_ns = round(random.lognormvariate(0, 3 if at > begun else 1) * MS)
            tally.on_answered(at, at, at + min(took_ns, 90 * MS), 0, None)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    kept = sum(len(each) for each in tally._over.values()) / 2
    assert after - before < 1.5 * kept + 20_000


def test_intervals_that_are_over_are_kept_small_and_whole() -> None:
    plan = Plan(rate=2_000, duration_s=240, warmup_s=0)
    tally, random = Tally(plan, 1), Random(1)
    for planned_ns in range(0, 20_000 * MS, MS // 2):
        took_ns = round(random.lognormvariate(0, 1) * MS)
        tally.on_answered(planned_ns, planned_ns, planned_ns + took_ns, 0, None)
    packed_bytes = [len(each) for each in tally._over.values()]
    assert len(packed_bytes) == 20
    assert max(packed_bytes) < 8_000
    before = tally.values().latency
    assert sum(sum(counts.values()) for counts, _, _ in before) == 40_000
    tally.on_answered(0, 0, 5 * MS, 0, None)  # one that should not be
    after = tally.values().latency
    assert sum(after[0][0].values()) == 1 + sum(before[0][0].values())
    assert after[1:] == before[1:]
