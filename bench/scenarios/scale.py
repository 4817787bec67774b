"""Does more workers mean more work done, and does a slow call hold up quick ones?

Three parts. A CPU-bound node with 2 workers against 1: how much of the second core is left after
what the broker and the client take. A sleeping node with 1 to 32 workers: whether the broker
keeps that many busy; closed loops with four calls outstanding per worker. And quick calls among
slow ones (subjects/mixed.py). The CPU-bound part would be wrong on a machine with fewer than two
free cores.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from typing import Any

from ..floors.functions import calibrate_count
from ..report import Report, Table, compare, extra, number, per_second, rate_table, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "Does more workers mean more work done, and does a slow call hold up quick ones?"
SLEEPERS = (1, 4, 16, 32)
OUTSTANDING_PER_WORKER = 4

_PACED, _FULL = "800 calls/s planned", "64 outstanding"


def measure(options: Options) -> Report:
    """Measure the three parts."""
    cpu = run(_cpu_bound(), options.plan(calls=1000, slices=2, warm_up=100), options.progress)
    sleeping = run(
        [_sleeper(workers) for workers in SLEEPERS],
        options.plan(calls=1000, slices=1, warm_up=50),
        options.progress,
    )
    mixed = run(_mixed(), options.plan(calls=3000, slices=1, warm_up=1000), options.progress)
    alone = per_second(sleeping[_workers(1)])
    comparisons = [
        compare("scale.cpu", per_second(cpu[_workers(2)]), per_second(cpu[_workers(1)])),
        compare("scale.machine", per_second(cpu[_bare(2)]), per_second(cpu[_bare(1)])),
        *(
            compare(
                f"scale.sleep_{workers}",
                per_second(sleeping[_workers(workers)]),
                [rate * workers for rate in alone],
            )
            for workers in SLEEPERS[1:]
        ),
        compare("scale.waited_paced", extra(mixed[_PACED], "quick_over_50_ms")),
        compare("scale.waited_full", extra(mixed[_FULL], "quick_over_50_ms")),
    ]
    return Report(
        scenario="scale",
        question=QUESTION,
        comparisons=comparisons,
        tables=[
            rate_table("CPU-bound 1 ms", cpu, "calls/s"),
            rate_table("sleeping 2 ms", sleeping, "calls/s"),
            _waits(mixed),
        ],
        notes=[],
        raw={
            "cpu": raw_rounds(cpu),
            "sleeping": raw_rounds(sleeping),
            "quick among slow": raw_rounds(mixed),
        },
    )


def _cpu_bound() -> list[Subject]:
    loops = calibrate_count(0.001)
    subjects = []
    for workers in (2, 1):
        ours: dict[str, Any] = {
            "node": "cpu_1ms",
            "arguments": {"loops": loops},
            "expected": loops,
            "count": OUTSTANDING_PER_WORKER * 2,
            "workers": workers,
        }
        floor = {"loops": loops, "workers": workers}
        subjects += [
            Subject(
                name=_workers(workers), factory="subjects.calls:kept_outstanding", options=ours
            ),
            Subject(name=_bare(workers), factory="floors.pools:pool_count", options=floor),
        ]
    return subjects


def _bare(workers: int) -> str:
    return f"Pool.map, {_workers(workers)}"


def _workers(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _sleeper(workers: int) -> Subject:
    options: dict[str, Any] = {
        "node": "nap_2ms",
        "arguments": {},
        "expected": None,
        "count": OUTSTANDING_PER_WORKER * workers,
        "workers": workers,
    }
    return Subject(
        name=_workers(workers),
        factory="subjects.calls:kept_outstanding",
        options=options,
        share=max(1, workers // 2),  # so that all run for about the same time
    )


def _mixed() -> list[Subject]:
    return [
        Subject(name=_PACED, factory="subjects.mixed:paced"),
        Subject(name=_FULL, factory="subjects.mixed:kept_full"),
    ]


def _waits(mixed: Rounds) -> Table:
    rows = []
    for name, rounds in mixed.items():
        found = {key: extra(rounds, key) for key in rounds[0].extra}
        rows.append(
            (
                name,
                f"{sum(one.calls for one in rounds):,}",
                number(sum(found["slow_calls"])),
                number(sum(found["quick_over_50_ms"])),
                number(max(found["quick_max_ms"])),
            )
        )
    head = ("quick among slow", "quick calls", "slow calls", "quick > 50 ms", "quick max ms")
    return Table("quick among slow", head, rows)
