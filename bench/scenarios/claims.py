"""What does a claim cost, and does its fence hold? See micro/claims.py.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..micro.claims import BOTH, NEITHER
from ..report import Report, Table, compare, extra, latency_table, number, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "What does a claim cost, and does its fence hold?"

_REAL, _CONTROL = "with the fence", "without, as a control"


def measure(options: Options) -> Report:
    """Time claims, then race them."""
    cost = run(
        [Subject(name="claim, finish, look", factory="micro.claims:cost")],
        options.plan(calls=50_000, slices=2, warm_up=1000),
        options.progress,
    )
    races = run(
        [
            Subject(name=_REAL, factory="micro.claims:race", options={"fenced": True}),
            Subject(name=_CONTROL, factory="micro.claims:race", options={"fenced": False}),
        ],
        options.plan(calls=200_000, slices=1, warm_up=1000),
        options.progress,
    )
    return Report(
        scenario="claims",
        question=QUESTION,
        comparisons=[compare("claims.both", extra(races[_REAL], BOTH))],
        tables=[latency_table("cost", cost), _outcomes(races)],
        notes=[],
        raw={"cost": raw_rounds(cost), "races": raw_rounds(races)},
    )


def _outcomes(races: Rounds) -> Table:
    rows = [
        (
            name,
            f"{sum(one.calls for one in rounds):,}",
            number(sum(extra(rounds, BOTH))),
            number(sum(extra(rounds, NEITHER))),
        )
        for name, rounds in races.items()
    ]
    return Table("races", ("claim against revoke", "races", BOTH, NEITHER), rows)
