"""How much is measured."""

from pronghorn.bench.rounds import Plan
from pronghorn.bench.scenarios.options import Options


def silent(message: str) -> None:
    pass


def test_a_plan_has_the_rounds_asked_for() -> None:
    options = Options(progress=silent, rounds=9)
    assert options.plan(calls=500, slices=4, warm_up=100) == Plan(
        rounds=9, calls=500, slices=4, warm_up=100
    )


def test_a_quick_plan_is_a_fifth_and_never_nothing() -> None:
    options = Options(progress=silent, rounds=1, quick=True)
    assert options.plan(calls=500, slices=4, warm_up=1) == Plan(
        rounds=1, calls=100, slices=4, warm_up=1
    )
