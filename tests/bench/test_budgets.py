"""Budgets: which side is better, and that the table is consistent."""

import pytest

from pronghorn.bench.budgets import BUDGETS, Budget
from pronghorn.bench.figures import Spread


@pytest.mark.parametrize(("value", "verdict"), [(1.2, "aim"), (1.5, "must"), (1.51, "missed")])
def test_at_most(value: float, verdict: str) -> None:
    assert Budget(figure="f", must=1.5, aim=1.2).judge(value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(8.0, "aim"), (5.0, "must"), (4.9, "missed")])
def test_at_least(value: float, verdict: str) -> None:
    assert Budget(figure="f", must=5.0, aim=8.0, at_most=False).judge(value) == verdict


def test_what_may_never_happen_is_judged_by_the_worst_round() -> None:
    rounds = Spread(median=0.0, low=0.0, high=1.0)
    assert Budget(figure="f", must=0.0, every_round=True).judge_rounds(rounds) == "missed"
    assert Budget(figure="f", must=0.0).judge_rounds(rounds) == "must"
    best = Budget(figure="f", must=0.5, at_most=False, every_round=True)
    assert best.judge_rounds(rounds) == "missed"


def test_without_a_must_it_is_printed() -> None:
    assert Budget(figure="f").judge(1e9) == "printed"


def test_without_an_aim_it_reaches_its_must() -> None:
    assert Budget(figure="f", must=1.0).judge(0.5) == "must"


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_an_aim_is_never_easier_than_the_must(name: str) -> None:
    budget = BUDGETS[name]
    if budget.must is not None and budget.aim is not None:
        assert budget.judge(budget.aim) == "aim"
        assert budget.aim <= budget.must if budget.at_most else budget.aim >= budget.must
