"""Does an idle pool sleep? Voluntary context switches of each thread of the tree in 10 s.

Two workers, warmed by 1,000 calls, then the client is silent and its connection stays open. A
switch is a wake-up by some timer or poll, and a push-only system has none. The client's own
process is shown but not judged: its main thread sleeps through the measurement. Reading /proc
wakes nobody.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import Report, Table, compare, extra, number, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "Does an idle pool sleep? (voluntary context switches of each thread in 10 s)"
SECONDS = 10

_OURS = "idle pool"


def measure(options: Options) -> Report:
    """Leave a pool alone in each round and count."""
    plan = options.plan(calls=SECONDS, slices=1, warm_up=1)
    rounds = run(
        [Subject(name=_OURS, factory="subjects.idle_pool:silence")], plan, options.progress
    )
    busiest = [
        max(count for label, count in one.extra.items() if not label.startswith("client"))
        for one in rounds[_OURS]
    ]
    return Report(
        scenario="idle",
        question=QUESTION,
        comparisons=[compare("idle.switches", busiest)],
        tables=[_threads(rounds)],
        notes=[],
        raw={"threads": raw_rounds(rounds)},
    )


def _threads(rounds: Rounds) -> Table:
    measured = rounds[_OURS]
    shared = [label for label in measured[0].extra if all(label in one.extra for one in measured)]
    rows = []
    for label in shared:
        found = spread(extra(measured, label))
        rows.append((label, number(found.median), f"{number(found.low)}..{number(found.high)}"))
    return Table("threads", ("process / thread", "switches", "rounds"), rows)
