"""What does it cost to have a call recorded?

Calls of a trivial node at each durability, on pools that have a journal, and what they cost those
beside them that are not recorded. The floor of a `sync` call is a call that is not recorded and,
after it, a bare LMDB commit of one record on the same disk. Left out: keys and started runs.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import (
    Report,
    compare,
    latency_table,
    p50,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "What does it cost to have a call recorded?"
IN_FLIGHT, SOME = 1_000, 64

_FLOOR = "bare LMDB commit"
_NONE, _BATCHED, _SYNC = "none", "batched", "sync"
_SYNC_SOME = f"sync, {SOME} in flight"
_SYNC_ONE = "sync, one in flight"


def measure(options: Options) -> Report:
    """Measure single calls, many calls, and calls beside many."""
    progress = options.progress
    alone = run(
        [
            *(
                Subject(name=level, factory="subjects.durable:recorded", options={"level": level})
                for level in (_NONE, _BATCHED, _SYNC)
            ),
            Subject(name=_FLOOR, factory="floors.commits:bare_commit"),
        ],
        options.plan(calls=500, slices=2, warm_up=100),
        progress,
    )
    many = run(
        [_many(level, level, IN_FLIGHT) for level in (_NONE, _BATCHED)],
        options.plan(calls=20_000, slices=1, warm_up=5_000),
        progress,
    )
    synced = run(
        [_many(_SYNC_ONE, _SYNC, 1), _many(_SYNC_SOME, _SYNC, SOME)],
        options.plan(calls=1_500, slices=1, warm_up=200),
        progress,
    )
    beside = run(
        [
            Subject(name=level, factory="subjects.durable:beside", options={"level": level})
            for level in (_NONE, _BATCHED)
        ],
        options.plan(calls=500, slices=1, warm_up=50),
        progress,
    )
    groups: dict[str, Rounds] = {
        "one call": alone,
        "in flight": many,
        "sync": synced,
        "beside": beside,
    }
    floor = [sum(pair) for pair in zip(p50(alone[_NONE]), p50(alone[_FLOOR]), strict=True)]
    return Report(
        scenario="durable",
        question=QUESTION,
        comparisons=[
            compare("durable.batched", p50(alone[_BATCHED]), p50(alone[_NONE])),
            compare("durable.sync", p50(alone[_SYNC]), floor),
            compare("durable.rate", per_second(many[_BATCHED]), per_second(many[_NONE])),
            compare(
                "durable.shared", per_second(synced[_SYNC_SOME]), per_second(synced[_SYNC_ONE])
            ),
            compare("durable.beside", p50(beside[_BATCHED]), p50(beside[_NONE])),
        ],
        tables=[
            latency_table("one call after the other", alone),
            rate_table(f"{IN_FLIGHT:,} in flight", many, "calls/s"),
            rate_table("sync", synced, "calls/s"),
            latency_table("not recorded, beside calls that are", beside),
        ],
        notes=[],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _many(name: str, level: str, count: int) -> Subject:
    options = {"level": level, "count": count}
    return Subject(name=name, factory="subjects.durable:many_recorded", options=options)
