"""Did a change make Pronghorn slower? A short run of ratios for CI, all pinned to one core.

Bytecodes come first, of a call, of a call that is recorded and of a run of a workflow: they are the
same on every machine, so a tenth more is noticed. The times notice what is not ours or not Python:
ratios to floors of the same run cancel the machine's speed; pinned, they are steadier (no wake-up
crosses cores). Many calls at once are held by their CPU time, and so are recorded calls and runs,
against that of a plain call: what they cost beside it. Interleaved rounds in fresh processes, the
median of the rounds' ratios.

The budgets of round trips stand above what a slow and noisy machine shows, on which Python loses
more than the C of the floor, and below 2.5 times what a quiet one does; Python against Python is
steadier, so recorded calls and runs may not become 1.5 times as slow. `prove` shows both: it runs
the same with calls made so much slower (`SLOW_DOWNS`), by a node that spins, and every such budget
must be broken. Left out: anything that one core can't show, such as a wake-up too many.

Mirror: tests/bench/test_guard.py.
"""

import sys
from typing import Any

import msgspec

from . import instructions
from .figures import ALL_CPU, median
from .report import (
    Comparison,
    Report,
    compare,
    extra,
    latency_table,
    p50,
    rate_table,
    raw_rounds,
)
from .rounds import Plan, Progress, Rounds, run
from .subject import Subject

QUESTION = "Did a change make it slower? (every process pinned to one core)"
PINNED = (0,)
ROUND_TRIPS = Plan(rounds=7, calls=300, slices=4, warm_up=300)
BURSTS = Plan(rounds=5, calls=3_000, slices=3, warm_up=3_000)
COUNTED = Plan(rounds=3, calls=1_000, slices=1, warm_up=1_000)
COSTS = Plan(rounds=5, calls=10, slices=4, warm_up=10)
TRACED = Plan(rounds=3, calls=10, slices=1, warm_up=10)

_IS_COUNTED = sys.version_info[:2] == (3, 11)
"""The budgets of bytecodes are those of this version; of others they are printed."""

_COUNTED = "counted per call"
_SYNC, _ASYNC, _PROXY = "Client.call", "AsyncClient.call", "C zmq.proxy + worker"
_BURST, _APPLY = "AsyncClient.call, many", "Pool.apply_async, many"
_PLAIN, _BATCHED, _RUN = _SYNC, "Client.call, batched", "Client.run, 20 tasks"

_TRACED: dict[str, tuple[str, str, dict[str, str]]] = {
    "guard.bytecodes": (_PLAIN, "subjects.calls:sync_round_trip", {}),
    "guard.bytecodes_batched": (_BATCHED, "subjects.durable:recorded", {"level": "batched"}),
    "guard.bytecodes_run": (_RUN, "subjects.flow_runs:run_of_20", {"place": "inline"}),
}
"""Budget -> name, factory and options of what is counted.

The tasks of the run are pinned to where they run anyway: while it is counted, which makes a node
thirty times slower, they would be placed by how fast the machine is.
"""


class SlowDown(msgspec.Struct, frozen=True):
    """How long a node spins in each call or run, to make a subject slower on purpose, ns."""

    sync_ns: int = 0
    async_ns: int = 0
    burst_ns: int = 0
    batched_ns: int = 0
    run_ns: int = 0


SLOW_DOWNS = (2.5, 2.5, 2.5, 1.5, 1.5)
"""What `prove` makes of each of them; bytecodes must be noticed at the last."""


def guard(progress: Progress, slow_down: SlowDown | None = None) -> Report:
    """Measure the ratios and hold them against their budgets."""
    slow_down = slow_down or SlowDown()
    alone = run(_round_trips(slow_down), ROUND_TRIPS, progress)
    many = run(_bursts(slow_down), BURSTS, progress)
    costs = run(_costly(slow_down), COSTS, progress)
    counted, notes = _instructions(progress)
    return Report(
        scenario="guard",
        question=QUESTION,
        comparisons=[
            *_bytecodes(progress),
            compare("guard.sync", p50(alone[_SYNC]), p50(alone[_PROXY])),
            compare("guard.async", p50(alone[_ASYNC]), p50(alone[_PROXY])),
            compare("guard.calls", extra(many[_BURST], ALL_CPU), extra(many[_APPLY], ALL_CPU)),
            compare(
                "guard.batched", extra(costs[_BATCHED], ALL_CPU), extra(costs[_PLAIN], ALL_CPU)
            ),
            compare("guard.run", extra(costs[_RUN], ALL_CPU), extra(costs[_PLAIN], ALL_CPU)),
            *counted,
        ],
        tables=[
            latency_table("round trips, one core", alone),
            latency_table("recorded calls and runs, one core", costs),
            rate_table("all at once, one core", many, "calls/s"),
        ],
        notes=notes,
        raw={
            "round trips": raw_rounds(alone),
            "bursts": raw_rounds(many),
            "costs": raw_rounds(costs),
        },
    )


def prove(progress: Progress) -> Report:
    """Run the guard with every call so much slower; all its budgets must be missed then."""
    progress("measuring how long a spin makes calls so much slower")
    usual = _costs_ns(SlowDown(), progress)
    # A spin costs more than its own time, for it changes who runs when: try, then correct.
    wanted = [cost * (factor - 1) for cost, factor in zip(usual, SLOW_DOWNS, strict=True)]
    guess = SlowDown(*map(round, wanted))
    tried = _costs_ns(guess, progress)
    spins = [
        round(more * more / max(after - before, more))
        for more, before, after in zip(wanted, usual, tried, strict=True)
    ]
    return guard(progress, SlowDown(*spins))


def unnoticed(report: Report) -> list[str]:
    """Return the budgets that a slow-down did not break.

    A node that spins runs as many bytecodes as it has time for. So theirs, which hardly vary, are
    held against the slow-down by arithmetic.
    """
    return [
        found.budget
        for found in report.comparisons
        if found.must is not None
        and (
            found.value.median * SLOW_DOWNS[-1] <= found.must
            if found.budget in _TRACED
            else found.verdict != "missed"
        )
    ]


def _costs_ns(slow_down: SlowDown, progress: Progress) -> list[float]:
    """Measure in short what the budgets of times hold: two round trips and three CPU times."""
    alone = run(_round_trips(slow_down), msgspec.structs.replace(ROUND_TRIPS, rounds=3), progress)
    many = run(_bursts(slow_down)[:1], msgspec.structs.replace(BURSTS, rounds=3), progress)
    costs = run(_costly(slow_down)[1:], msgspec.structs.replace(COSTS, rounds=3), progress)
    return [
        median(each) * 1000
        for each in (
            p50(alone[_SYNC]),
            p50(alone[_ASYNC]),
            extra(many[_BURST], ALL_CPU),
            extra(costs[_BATCHED], ALL_CPU),
            extra(costs[_RUN], ALL_CPU),
        )
    ]


def _round_trips(slow_down: SlowDown) -> list[Subject]:
    return [
        Subject(
            name=_SYNC,
            factory="subjects.calls:sync_round_trip",
            options={"spin_ns": slow_down.sync_ns},
            cpus=PINNED,
        ),
        Subject(name=_PROXY, factory="floors.zeromq:proxied", cpus=PINNED),
        Subject(
            name=_ASYNC,
            factory="subjects.calls:async_round_trip",
            options={"spin_ns": slow_down.async_ns},
            cpus=PINNED,
        ),
    ]


def _bursts(slow_down: SlowDown) -> list[Subject]:
    return [
        Subject(
            name=_BURST,
            factory="subjects.calls:async_burst",
            options={"spin_ns": slow_down.burst_ns},
            cpus=PINNED,
        ),
        Subject(name=_APPLY, factory="floors.pools:pool_burst", cpus=PINNED),
    ]


def _costly(slow_down: SlowDown) -> list[Subject]:
    """Give a plain call, and what costs more: a recorded one and a run."""
    batched = {"level": "batched", "spin_ns": slow_down.batched_ns}
    described: list[tuple[str, str, dict[str, Any], int]] = [
        (_PLAIN, "subjects.calls:sync_round_trip", {}, 30),
        (_BATCHED, "subjects.durable:recorded", batched, 20),
        (_RUN, "subjects.flow_runs:run_of_20", {"spin_ns": slow_down.run_ns}, 1),
    ]
    return [
        Subject(
            name=name,
            factory="subjects.counted:cpu_time",
            options={"factory": factory, **options},
            cpus=PINNED,
            share=share,
        )
        for name, factory, options, share in described
    ]


def _bytecodes(progress: Progress) -> list[Comparison]:
    """Count bytecodes; the least of the rounds, for all that disturbs makes more of them."""
    subjects = [
        Subject(
            name=name,
            factory="subjects.counted:bytecodes",
            options={"factory": factory, "workers": 1, **options},
            share=1 if name == _RUN else 20,
        )
        for name, factory, options in _TRACED.values()
    ]
    found = run(subjects, TRACED, progress)
    return [
        compare(
            budget if _IS_COUNTED else f"{budget}_elsewhere", [min(extra(found[name], _COUNTED))]
        )
        for budget, (name, *_) in _TRACED.items()
    ]


def _instructions(progress: Progress) -> tuple[list[Comparison], list[str]]:
    """Compare instructions per call with the floor's, where the processor's counter can be read."""
    why_not = instructions.unsupported()
    if why_not is not None:
        return [], [f"Instructions per call are not counted here: {why_not}."]
    subjects = [
        Subject(name=_SYNC, factory="subjects.counted:ours", cpus=PINNED),
        Subject(name=_PROXY, factory="subjects.counted:floor", cpus=PINNED),
    ]
    rounds: Rounds = run(subjects, COUNTED, progress)
    ours, theirs = (extra(rounds[name], _COUNTED) for name in (_SYNC, _PROXY))
    return [compare("guard.instructions", ours, theirs)], []
