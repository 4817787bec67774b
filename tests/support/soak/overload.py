"""More calls than can be served, for minutes: the load of ``scripts/bench faults``, and others.

See pronghorn.bench.subjects.overload for what is done and measured.
"""

import sys
from typing import NamedTuple

import msgspec
from rich.table import Table

from pronghorn.bench.budgets import BUDGETS
from pronghorn.bench.figures import Latency, Measurement, latency
from pronghorn.bench.subjects.overload import GOODPUT, GRANT, MEMORY, overloaded

from .report import print_results

SECONDS = 60


class Load(NamedTuple):
    """How much is offered, and how many open calls each client is granted; `None`: the default."""

    factor: float
    grant: int | None = GRANT


LOADS = {
    "2x": Load(2.0),
    "5x": Load(5.0),
    "10x": Load(10.0),
    # 100,000 calls wait before any is refused.
    "10x-deep": Load(10.0, grant=None),
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one load; `refused` in microseconds from the planned times."""

    load: str
    calls: int
    refused: Latency | None
    figures: dict[str, float]
    missed: list[str]


def measure(name: str, seconds: int) -> Result:
    """Offer a load for so long, and hold what comes of it against the budgets."""
    load = LOADS[name]
    with overloaded(load.factor, grant=load.grant) as measuring:
        measured = measuring(seconds)
    return Result(
        load=name,
        calls=measured.calls,
        refused=latency(measured.latencies_ns) if measured.latencies_ns else None,
        figures=measured.extra,
        missed=_missed(measured),
    )


def soak(seconds: int, only: str | None, *, as_json: bool) -> int:
    """Offer all loads, or one; returns an exit status."""
    results = []
    for name in LOADS if only is None else [only]:
        print(f"{name}: {seconds} seconds", file=sys.stderr, flush=True)
        results.append(measure(name, seconds))
    print_results(results, results_table, as_json=as_json)
    return 1 if any(result.missed for result in results) else 0


def results_table(results: list[Result]) -> Table:
    """Show one load a row."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("load")
    for column in ("calls", *results[0].figures, "refused p50 ms", "p99", "max", "missed"):
        shown.add_column(column, justify="right")
    for one in results:
        times = one.refused
        shown.add_row(
            one.load,
            f"{one.calls:,}",
            *(
                f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
                for value in one.figures.values()
            ),
            *(f"{us / 1000:.2f}" for us in (times.p50, times.p99, times.max))
            if times
            else ("none", "", ""),
            ", ".join(one.missed) or "nothing",
        )
    return shown


def _missed(measured: Measurement) -> list[str]:
    """Name the budgets of the benchmark that are not reached."""
    found = {
        "faults.goodput": measured.extra[GOODPUT],
        "faults.memory": measured.extra[MEMORY],
    }
    if measured.latencies_ns:
        found["faults.refused"] = latency(measured.latencies_ns).p99 / 1000
    return [name for name, value in found.items() if BUDGETS[name].judge(value) == "missed"]
