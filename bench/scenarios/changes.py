"""What do callers notice of workers that are replaced, reloaded or become more and fewer?

At half of the capacity, in an open loop; the same load without changes stands beside it. What is
left out: what a change itself takes, and pools whose modules take long to import.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import Report, Table, compare, extra, latency_table, number, p99, raw_rounds
from ..rounds import run
from ..subject import Subject
from ..subjects.changes import CHANGES, FAILED
from .options import Options

QUESTION = "What do callers notice of workers that are replaced, reloaded or scaled?"

_STEADY = "steady"
_CHANGED = ("recycle", "reload", "scale")


def measure(options: Options) -> Report:
    """Measure all of them, interleaved."""
    subjects = [
        Subject(name=name, factory="subjects.changes:changed", options={"change": change})
        for name, change in ((_STEADY, None), *((name, name) for name in _CHANGED))
    ]
    rounds = run(subjects, options.plan(calls=10, slices=1, warm_up=1), options.progress)
    comparisons = [
        compare(f"changes.{name}", p99(rounds[name]), p99(rounds[_STEADY])) for name in _CHANGED
    ]
    failed = [
        sum(each) for each in zip(*(extra(rounds[name], FAILED) for name in _CHANGED), strict=True)
    ]
    rows = [
        (name, number(spread(extra(rounds[name], CHANGES)).median), number(sum(failed)))
        for name in _CHANGED
    ]
    return Report(
        scenario="changes",
        question=QUESTION,
        comparisons=[*comparisons, compare("changes.failed", failed)],
        tables=[
            latency_table("calls at half of the capacity", rounds),
            Table("changes", ("change", "times a round", "failed calls of all"), rows),
        ],
        notes=["Each change is made once a second, and the next not before it is done."],
        raw={"calls at half of the capacity": raw_rounds(rounds)},
    )
