"""How many calls a second does one client get done when it has 10,000 to make?

All calls are handed over at once and all results awaited: the rate, the CPU time that a call
costs in each process, and what the processes hold afterwards. A burst says nothing of latency
under load. Wrong if results were not awaited or not checked; both are.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import (
    Report,
    Table,
    compare,
    extra,
    number,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "How many calls a second when one client has 10,000 to make? (closed, all at once)"
CALLS = 10_000

_OURS, _EXECUTOR, _APPLY = "AsyncClient.call", "ProcessPoolExecutor.submit", "Pool.apply_async"


def measure(options: Options) -> Report:
    """Measure the burst of each and compare."""
    plan = options.plan(calls=CALLS, slices=2, warm_up=2_000)
    rounds = run(
        [
            Subject(name=_OURS, factory="subjects.calls:async_burst"),
            Subject(name=_EXECUTOR, factory="floors.pools:executor_burst"),
            Subject(name=_APPLY, factory="floors.pools:pool_burst"),
        ],
        plan,
        options.progress,
    )
    rates = {name: per_second(measured) for name, measured in rounds.items()}
    return Report(
        scenario="throughput",
        question=QUESTION,
        comparisons=[
            compare("throughput.executor", rates[_OURS], rates[_EXECUTOR]),
            compare("throughput.apply_async", rates[_OURS], rates[_APPLY]),
        ],
        tables=[rate_table("10,000 calls", rounds, "calls/s"), _costs(rounds)],
        notes=["pss shares pages out among their users, uss is a process's own memory alone."],
        raw={"bursts": raw_rounds(rounds)},
    )


def _costs(rounds: Rounds) -> Table:
    measured = rounds[_OURS]
    rows = []
    for name in measured[0].extra:
        found = spread(extra(measured, name))
        rows.append((name, number(found.median), f"{number(found.low)}..{number(found.high)}"))
    return Table("costs", ("Pronghorn's processes", "median", "rounds"), rows)
