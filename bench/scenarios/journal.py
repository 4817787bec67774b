"""What does it cost to keep a record, as far as the journal's writer alone is concerned?

The writer with one sender, no broker or worker; and the floor, a bare LMDB commit of one record on
the same disk. Left out: what a broker spends on a durable call, and the call itself. It says
nothing of a disk that lies about its syncs, or of one that is busy with others.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import (
    Report,
    Table,
    compare,
    extra,
    latency_table,
    number,
    p50,
    p99,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from ..subjects.journal_loads import (
    BYTES_PER_RUN,
    COMMITS_OF_MOST,
    COMMITS_PER_RUN,
    IN_FLIGHT,
    RATE_PER_S,
    TOGETHER,
)
from .options import Options

QUESTION = "What does it cost to keep a record?"
RUNS_KEPT = 100_000

_FLOOR, _ONE = "bare LMDB commit", "one record at a time"
_FIRST = f"one record, {TOGETHER - 1} right behind it"
_OFFERED, _MANY = f"{RATE_PER_S:,} records/s offered", f"{IN_FLIGHT:,} runs in flight"
_START = f"start with {RUNS_KEPT:,} ended runs, a tenth of open ones"


def measure(options: Options) -> Report:
    """Measure the floor beside single records, then the loads and starts."""
    progress = options.progress
    alone = run(
        [
            Subject(name=_FLOOR, factory="floors.commits:bare_commit"),
            Subject(name=_ONE, factory="subjects.journal_loads:one_at_a_time"),
        ],
        options.plan(calls=500, slices=2, warm_up=50),
        progress,
    )
    together = run(
        [Subject(name=_FIRST, factory="subjects.journal_loads:together")],
        options.plan(calls=100, slices=2, warm_up=10),
        progress,
    )
    offered = run(
        [Subject(name=_OFFERED, factory="subjects.journal_loads:offered")],
        options.plan(calls=30_000, slices=1, warm_up=2_000),
        progress,
    )
    many = run(
        [Subject(name=_MANY, factory="subjects.journal_loads:in_flight")],
        options.plan(calls=50_000, slices=1, warm_up=5_000),
        progress,
    )
    start = run(
        [Subject(name=_START, factory="subjects.journal_loads:starts")],
        options.plan(calls=RUNS_KEPT, slices=1, warm_up=10),
        progress,
    )
    groups: dict[str, Rounds] = {
        "one record": alone,
        "together": together,
        "offered": offered,
        "in flight": many,
        "start": start,
    }
    return Report(
        scenario="journal",
        question=QUESTION,
        comparisons=[
            compare("journal.one", p50(alone[_ONE]), p50(alone[_FLOOR])),
            compare("journal.offered_p50", [us / 1000 for us in p50(offered[_OFFERED])]),
            compare("journal.offered_p99", [us / 1000 for us in p99(offered[_OFFERED])]),
            compare("journal.commits", extra(many[_MANY], COMMITS_PER_RUN)),
            compare("journal.together", extra(together[_FIRST], COMMITS_OF_MOST)),
            compare("journal.first", p50(together[_FIRST]), p50(alone[_ONE])),
            compare("journal.bytes", extra(many[_MANY], BYTES_PER_RUN)),
            compare("journal.start", [us / 1e6 for us in p50(start[_START])]),
        ],
        tables=[
            latency_table("one record, kept", alone),
            latency_table("one record, kept, of many", together),
            latency_table("from offer to acknowledgement", offered),
            rate_table("in flight", many, "runs/s"),
            _extras(many),
            latency_table("until brokers are taken", start),
        ],
        notes=[f"In flight, {COMMITS_PER_RUN} counts acknowledgements, each of one commit."],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _extras(many: Rounds) -> Table:
    rows = [
        (name, number(spread(extra(many[_MANY], name)).median))
        for name in (COMMITS_PER_RUN, BYTES_PER_RUN)
    ]
    return Table("per run", ("per run", "median"), rows)
