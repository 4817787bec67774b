"""Did a change make Pronghorn slower? A short run of ratios for CI, all pinned to one core.

Bytecodes per call come first: they are the same on every machine, so a tenth more is noticed. The
times notice what is not ours or not Python: ratios to floors of the same run cancel the machine's
speed; pinned, they are steadier (no wake-up crosses cores). Many calls at once are held by their
CPU time. Interleaved rounds in fresh processes, the median of the rounds' ratios. The budgets of
times stand above what a slow and noisy machine shows, on which Python loses more than the C of the
floor, and below 2.5 times what a quiet one does. `prove` shows that: it runs the same with calls
made so much slower (`SLOW_DOWN`), by a node that spins, and every such budget must be broken. Left
out: anything that one core can't show, such as a wake-up too many.

Mirror: tests/bench/test_guard.py.
"""

import sys

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
SLOW_DOWN = 2.5

ROUND_TRIPS = Plan(rounds=7, calls=300, slices=4, warm_up=300)
BURSTS = Plan(rounds=5, calls=3_000, slices=3, warm_up=3_000)
COUNTED = Plan(rounds=3, calls=1_000, slices=1, warm_up=1_000)
TRACED = Plan(rounds=3, calls=200, slices=1, warm_up=200)

BYTECODES = "guard.bytecodes" if sys.version_info[:2] == (3, 11) else "guard.bytecodes_elsewhere"

_COUNTED = "counted per call"
_SYNC, _ASYNC, _PROXY = "Client.call", "AsyncClient.call", "C zmq.proxy + worker"
_BURST, _APPLY = "AsyncClient.call, many", "Pool.apply_async, many"
_TRACED = Subject(name="Client.call, traced", factory="subjects.counted:bytecodes")


class SlowDown(msgspec.Struct, frozen=True):
    """How long the node spins in each call, to make a subject slower on purpose, ns."""

    sync_ns: int = 0
    async_ns: int = 0
    burst_ns: int = 0


def guard(progress: Progress, slow_down: SlowDown | None = None) -> Report:
    """Measure the ratios and hold them against their budgets."""
    slow_down = slow_down or SlowDown()
    alone = run(_round_trips(slow_down), ROUND_TRIPS, progress)
    many = run(_bursts(slow_down), BURSTS, progress)
    counted, notes = _instructions(progress)
    bytecodes = run([_TRACED], TRACED, progress)[_TRACED.name]
    return Report(
        scenario="guard",
        question=QUESTION,
        comparisons=[
            compare(BYTECODES, [min(extra(bytecodes, _COUNTED))]),
            compare("guard.sync", p50(alone[_SYNC]), p50(alone[_PROXY])),
            compare("guard.async", p50(alone[_ASYNC]), p50(alone[_PROXY])),
            compare("guard.calls", extra(many[_BURST], ALL_CPU), extra(many[_APPLY], ALL_CPU)),
            *counted,
        ],
        tables=[
            latency_table("round trips, one core", alone),
            rate_table("all at once, one core", many, "calls/s"),
        ],
        notes=notes,
        raw={"round trips": raw_rounds(alone), "bursts": raw_rounds(many)},
    )


def prove(progress: Progress) -> Report:
    """Run the guard with every call so much slower; all its budgets of times must be missed."""
    progress("measuring how long a spin makes calls so much slower")
    usual = _costs_ns(SlowDown(), progress)
    # A spin costs more than its own time, for it changes who runs when: try, then correct.
    guess = SlowDown(*(round(cost * (SLOW_DOWN - 1)) for cost in usual))
    tried = _costs_ns(guess, progress)
    spins = [
        round(spin * (SLOW_DOWN - 1) * before / max(after - before, spin))
        for spin, before, after in zip(msgspec.structs.astuple(guess), usual, tried, strict=True)
    ]
    return guard(progress, SlowDown(*spins))


def unnoticed(report: Report) -> list[str]:
    """Return the budgets of times that a slow-down did not break."""
    return [
        found.budget
        for found in report.comparisons
        if found.must is not None and found.verdict != "missed" and found.budget != BYTECODES
    ]


def _costs_ns(slow_down: SlowDown, progress: Progress) -> tuple[float, float, float]:
    """Measure in short what the three budgets hold: two round trips and the CPU time of a call."""
    alone = run(_round_trips(slow_down), msgspec.structs.replace(ROUND_TRIPS, rounds=3), progress)
    many = run(_bursts(slow_down)[:1], msgspec.structs.replace(BURSTS, rounds=3), progress)
    return (
        median(p50(alone[_SYNC])) * 1000,
        median(p50(alone[_ASYNC])) * 1000,
        median(extra(many[_BURST], ALL_CPU)) * 1000,
    )


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
