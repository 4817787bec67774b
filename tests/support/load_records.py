"""Records of runs that never were."""

from collections.abc import Sequence
from functools import cache
from random import Random

from pronghorn.bench.load.mix import make_kind
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import GeneratorRecord, Record, make_record
from pronghorn.bench.load.tally import Tally, Totals

MS = 1_000_000


def tally_of(plan: Plan) -> Tally:
    return Tally(plan, 1)


def record_of(
    tally: Tally,
    plan: Plan,
    *,
    cpu: float = 0.1,
    troubles: Sequence[str] = (),
) -> Record:
    return make_record(
        plan,
        [make_kind("add", 1, [{"a": 1, "b": 2}], 1)],
        Totals(plan, 1, [tally.values()]),
        target="pronghorn ipc:///somewhere",
        generators=[GeneratorRecord(1, cpu, 50_000_000)],
        broker=[],
        environment={"cpu": "a <fast> one", "cores": 2},
        troubles=troubles,
    )


@cache  # it is a value, and takes 20 ms to make
def imagined(
    *,
    median_ms: float = 1.0,
    seed: int = 1,
    rate: float = 1000,
    duration_s: float = 4.0,
    failing: float = 0.0,
    cpu: float = 0.1,
    lag_ms: float = 0.05,
) -> Record:
    """Make a record of calls whose latencies are exponential around a median."""
    plan = Plan(rate=rate, duration_s=duration_s, warmup_s=0)
    tally = tally_of(plan)
    random = Random(seed)
    lag_ns = round(lag_ms * MS)
    for planned_ns in plan.times_ns():
        tally.on_sent(planned_ns, planned_ns + lag_ns, held_back=False)
        took_ns = lag_ns + round(random.expovariate(0.693 / (median_ms * MS)))
        code = "NODE_ERROR" if random.random() < failing else None
        tally.on_answered(planned_ns, planned_ns + lag_ns, planned_ns + took_ns, 0, code)
    return record_of(tally, plan, cpu=cpu)
