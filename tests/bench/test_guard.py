"""The guard's wiring and verdicts; `guard --prove` shows that its budgets notice a slow-down."""

import pytest

from pronghorn.bench import guard, instructions
from pronghorn.bench.budgets import BUDGETS
from pronghorn.bench.report import Report, compare
from pronghorn.bench.rounds import Plan

TIMES = {"guard.sync", "guard.async", "guard.calls", "guard.batched", "guard.run"}
BYTECODES = {"guard.bytecodes", "guard.bytecodes_batched", "guard.bytecodes_run"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Plan(rounds=1, calls=50, slices=1, warm_up=50)
    for plan in ("ROUND_TRIPS", "BURSTS", "COUNTED"):
        monkeypatch.setattr(guard, plan, tiny)
    for plan in ("COSTS", "TRACED"):  # of which calls are many for each run
        monkeypatch.setattr(guard, plan, Plan(rounds=1, calls=3, slices=1, warm_up=1))


def silent(message: str) -> None:
    pass


def report_of(**figures: float) -> Report:
    return Report(
        scenario="guard",
        question="",
        comparisons=[
            compare(f"guard.{name}", [figure], None if name in bytecodes() else [1.0])
            for name, figure in figures.items()
        ],
        tables=[],
        notes=[],
        raw={},
    )


def bytecodes() -> set[str]:
    return {name.removeprefix("guard.") for name in BYTECODES}


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_calls_made_much_slower_miss_every_budget_of_times() -> None:
    ms = 1_000_000
    slow = guard.SlowDown(sync_ns=ms, async_ns=ms, burst_ns=ms, batched_ns=10 * ms, run_ns=100 * ms)
    report = guard.guard(silent, slow)
    found = {one.budget.removesuffix("_elsewhere") for one in report.comparisons}
    assert found >= TIMES | BYTECODES
    assert not TIMES & set(guard.unnoticed(report))
    if instructions.unsupported():
        assert "not counted" in report.notes[0]


def test_what_a_slow_down_did_not_break_is_told() -> None:
    report = report_of(sync=1.0, **{"async": 9.0}, instructions=9.0)
    assert guard.unnoticed(report) == ["guard.sync"]
    assert report.missed == ["guard.async"]


def test_bytecodes_must_be_near_enough_to_their_budget() -> None:
    must = BUDGETS["guard.bytecodes"].must
    assert must is not None
    assert guard.unnoticed(report_of(bytecodes=must / 1.1)) == []
    assert guard.unnoticed(report_of(bytecodes=must / 2)) == ["guard.bytecodes"]


def test_all_that_the_guard_holds_has_a_budget() -> None:
    assert all(BUDGETS[name].must for name in TIMES | BYTECODES)
