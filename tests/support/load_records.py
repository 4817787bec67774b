"""Records of runs that never were."""

from collections.abc import Sequence
from functools import cache
from random import Random

import msgspec

from pronghorn.bench.load.mix import make_kind
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import (
    BrokerNode,
    GeneratorRecord,
    Knee,
    Record,
    Trial,
    make_record,
)
from pronghorn.bench.load.tally import Tally, Totals

MS = 1_000_000


def tally_of(plan: Plan) -> Tally:
    return Tally(plan, 1)


def record_of(
    tally: Tally,
    plan: Plan,
    *,
    cpu: float = 0.1,
    ran_s: float | None = None,
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
        ran_s=ran_s,
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
    troubles: tuple[str, ...] = (),
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
    return record_of(tally, plan, cpu=cpu, troubles=troubles)


LONG_NAME = "warehouse.inventory.a_node_with_a_quite_long_name_that_nobody_would_write_twice"


def crowded() -> Record:
    """Make a record with all that a report can show, and with long names, texts and figures."""
    plan = Plan(rate=12_800, duration_s=30.0, warmup_s=1.0, clients=64, profile="spike")
    nodes = ("add", LONG_NAME, "Ümläut.größe")
    tally = Tally(plan, len(nodes))
    random = Random(1)
    for number in range(40_000):
        planned_ns = round((1.0 + number * 30 / 40_000) * 1e9)
        sent_ns = planned_ns + round(random.expovariate(1 / (9 * MS)))
        now_ns = sent_ns + round(random.paretovariate(0.6) * MS)
        code = random.choice(
            ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "NODE_ERROR", *[None] * 90)
        )
        tally.on_sent(planned_ns, sent_ns, held_back=number % 3 == 0)
        tally.on_answered(planned_ns, sent_ns, now_ns, number % len(nodes), code)
    for number in range(20):
        tally.on_event(round((1 + number / 7) * 1e9), "the connection to the broker was lost")
    why = "generator saturated: 1 % of the calls left more than 8.1 ms late; it has taken 12 %"
    trials = [
        Trial(rate, not late, 1_234_567, 123_456_789, why if late else "")
        for rate, late in ((1000.0, False), (102_400.0, True), (12_800.0, False), (12.5, True))
    ]
    record = make_record(
        plan,
        [make_kind(node, 1, [{"a": 1, "b": 2}], 1) for node in nodes],
        Totals(plan, len(nodes), [tally.values()]),
        target=f"pronghorn ipc:///run/user/1000/{'a-long-folder/' * 6}broker.sock",
        generators=[GeneratorRecord(4_194_304 - each, 0.97, 50_000_000) for each in range(4)],
        broker=[
            BrokerNode(
                node=node,
                calls=1_234_567,
                errors={},
                run_p50_ns=12_345,
                run_p99_ns=123_456_789,
                queue_p50_ns=0,
                queue_p99_ns=999_999,
            )
            for node in nodes
        ],
        environment={
            "command": "pronghorn load --scenario mix.toml --params-file=a/b/c.jsonl --out x-y",
            "cpu": "a <fast> one",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "load_and_server_share_cores": True,
            "packages": {"pronghorn": "0.1.0", "msgspec": "0.23.0", "pyzmq": "27.3.0"},
        },
    )
    return msgspec.structs.replace(record, knee=Knee("p99<5ms", 12_800.0, tuple(trials)))
