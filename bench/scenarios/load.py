"""Can what ``pronghorn load`` says be believed, and how much of it can one process do?

The harness measures what is known by arithmetic, its own lateness, its own limit and its own
memory. Wrong if other programs keep the cores busy: they delay the generator as they would any.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import Report, Table, compare, extra, number, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from ..subjects.generators import (
    GROWTH,
    LAG_P99,
    SAYS_INVALID,
    STALL_SEEN_MS,
    VALID,
    off,
)
from .options import Options

QUESTION = "Can the load harness be believed?"

_STALLED, _ON_TIME = "200 ms stall in each 2 s", "idle pool at 2,000/s"
_LIMIT, _LONG = "rates that rise", "memory at 2,000/s"
_SUBJECTS = {
    _STALLED: ("stalled", 10),
    _ON_TIME: ("on_time", 5),
    _LIMIT: ("at_its_limit", 2),
    _LONG: ("for_long", 60),
}
"""Name -> factory, seconds of a round."""


def measure(options: Options) -> Report:
    """Measure one after the other: side by side they would keep the cores from each other."""
    found: Rounds = {}
    for name, (factory, seconds) in _SUBJECTS.items():
        subject = Subject(name=name, factory=f"subjects.generators:{factory}")
        plan = options.plan(calls=seconds, slices=1, warm_up=1)
        found |= run([subject], plan, options.progress)
    return Report(
        scenario="load",
        question=QUESTION,
        comparisons=[
            *(
                compare(f"load.p{percent:g}", extra(found[_STALLED], off(percent)))
                for percent in STALL_SEEN_MS
            ),
            compare("load.lag", [us / 1000 for us in extra(found[_ON_TIME], LAG_P99)]),
            compare("load.rate", extra(found[_LIMIT], VALID)),
            compare("load.invalid", extra(found[_LIMIT], SAYS_INVALID)),
            compare("load.memory", extra(found[_LONG], GROWTH)),
        ],
        tables=[_table(found)],
        notes=["Rates rise in steps; the generator has a core of its own where there are two."],
        raw={"runs": raw_rounds(found)},
    )


def _table(found: Rounds) -> Table:
    rows = []
    for name, measured in found.items():
        for figure in measured[0].extra:
            values = spread(extra(measured, figure))
            spread_of = f"{number(values.low)}..{number(values.high)}"
            rows.append((f"{name}: {figure}", number(values.median), spread_of))
    return Table("runs", ("runs", "median", "rounds"), rows)
