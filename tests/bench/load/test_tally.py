"""What is counted of which calls."""

from random import Random

import msgspec
from load_records import MS, tally_of

from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.tally import Tally, TallyValues

PLAN = Plan(rate=10, duration_s=1, warmup_s=1)
S = 1000 * MS


def totals(tally: Tally) -> list[int]:
    return [each.count for each in tally.latency]


def test_warm_up_is_counted_nowhere_else() -> None:
    tally = tally_of(PLAN)
    tally.on_sent(S - 1, S, held_back=True)
    tally.on_answered(S - 1, S, 2 * S, 0, None)
    tally.on_unsent(S - 1)
    assert tally.warmup_calls == 1
    assert sum(totals(tally)) == tally.sent == tally.unsent == tally.lag.count == 0


def test_latency_runs_from_the_planned_time_and_service_from_the_sending() -> None:
    tally = tally_of(PLAN)
    tally.on_sent(S, S + 30 * MS, held_back=False)
    tally.on_answered(S, S + 30 * MS, S + 40 * MS, 0, None)
    assert tally.latency[0].max_ns == 40 * MS
    assert tally.service.max_ns == 10 * MS
    assert tally.lag.max_ns == 30 * MS
    assert tally.late == 1


def test_answers_after_the_end_are_the_drain() -> None:
    tally = tally_of(PLAN)
    tally.on_answered(S, S, 2 * S - 1, 0, None)
    tally.on_answered(S, S, 2 * S, 0, None)
    tally.on_answered(S, S, 9 * S, 0, None)
    assert totals(tally)[-2:] == [1, 2]
    assert tally.drained == 2


def test_failures_are_counted_and_only_those_waited_for_have_latencies() -> None:
    tally = tally_of(PLAN)
    tally.on_answered(S, S, S + MS, 0, "RESOURCE_EXHAUSTED")
    tally.on_answered(S, S, S + 500 * MS, 0, "DEADLINE_EXCEEDED")
    assert sum(totals(tally)) == 1
    assert max(each.max_ns for each in tally.latency) == 500 * MS
    assert sum(each.total() for each in tally.errors) == 2


def test_several_are_put_together_exactly_as_they_travel() -> None:
    whole, merged = tally_of(PLAN), tally_of(PLAN)
    parts = [tally_of(PLAN) for _ in range(2)]
    for number in range(100):
        at = S + number * 9 * MS
        code = "NODE_ERROR" if number % 7 == 0 else None
        for tally in (whole, parts[number % 2]):
            tally.on_sent(at, at + number * 1000, held_back=number % 3 == 0)
            tally.on_answered(at, at + number * 1000, at + number * MS, 0, code)
            tally.on_event(at, str(number))
    for part in parts:
        sent = msgspec.msgpack.encode(part.values())
        merged.add(msgspec.msgpack.decode(sent, type=TallyValues))
    assert merged.values() == whole.values()


def test_intervals_that_are_over_are_kept_small_and_whole() -> None:
    plan = Plan(rate=2_000, duration_s=240, warmup_s=0)
    tally, random = Tally(plan, 1), Random(1)
    for planned_ns in range(0, 20_000 * MS, MS // 2):
        took_ns = round(random.lognormvariate(0, 1) * MS)
        tally.on_answered(planned_ns, planned_ns, planned_ns + took_ns, 0, None)
    unpacked = tally.values()
    tally.pack_before(-1)
    tally.pack_before(19_500 * MS)
    assert sum(each.count for each in tally.latency) < 4_000  # the rest is packed
    packed_bytes = [len(each) for each in tally._over.values()]
    assert len(packed_bytes) == 19
    assert max(packed_bytes) < 8_000
    assert tally.values() == unpacked
    tally.on_answered(0, 0, 5 * MS, 0, None)  # one that should not be
    assert sum(tally.values().latency[0][0].values()) == 1 + sum(unpacked.latency[0][0].values())
