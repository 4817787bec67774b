"""The guard's wiring and verdicts; `guard --prove` shows that its budgets notice a slow-down."""

import pytest

from pronghorn.bench import guard, instructions
from pronghorn.bench.report import Report, compare
from pronghorn.bench.rounds import Plan

TINY = Plan(rounds=1, calls=50, slices=1, warm_up=50)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for plan in ("ROUND_TRIPS", "BURSTS", "COUNTED", "TRACED"):
        monkeypatch.setattr(guard, plan, TINY)


def silent(message: str) -> None:
    pass


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_calls_made_much_slower_miss_every_budget() -> None:
    slow = guard.SlowDown(sync_ns=1_000_000, async_ns=1_000_000, burst_ns=1_000_000)
    report = guard.guard(silent, slow)
    assert {guard.BYTECODES, "guard.sync", "guard.async", "guard.calls"} <= {
        one.budget for one in report.comparisons
    }
    assert guard.unnoticed(report) == []
    if instructions.unsupported():
        assert "not counted" in report.notes[0]


def test_what_a_slow_down_did_not_break_is_told() -> None:
    report = Report(
        scenario="guard",
        question="",
        comparisons=[
            compare(guard.BYTECODES, [1.0]),
            compare("guard.sync", [1.0], [1.0]),
            compare("guard.async", [9.0], [1.0]),
            compare("guard.instructions", [9.0], [1.0]),
        ],
        tables=[],
        notes=[],
        raw={},
    )
    assert guard.unnoticed(report) == ["guard.sync"]
    assert report.missed == ["guard.async"]
