"""What does a caller notice when something goes wrong, or when others ask for too much?

Times from a fault to the answer, of workers and brokers that are killed, of nodes that hang, of
quick calls beside others that are in the way, and of calls at ten times the capacity. See
subjects/faults.py and subjects/overload.py for what is done. Left out: whether what callers are
told is true, which ``scripts/soak faults`` asks.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import spread
from ..report import Report, Table, compare, extra, latency_table, number, p50, p99, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from ..subjects.faults import LOST, SLOW_PERCENT, WHOLE_P99
from ..subjects.overload import GOODPUT, MEMORY
from .options import Options

QUESTION = "What does a caller notice when something goes wrong?"
FACTOR = 10.0

_KILLED, _FINISHED = "worker killed", "worker killed after its result"
_IDLE, _BLOCKED = "idle pool", "the other worker is blocked"
_ALONE, _CROWD, _BUSY = "alone", "beside 10,000 queued", "beside 10,000 queued, cores busy"
_SPIN, _BROKER = "50 ms deadline of a node that spins", "broker killed"
_OVERLOAD = "refused at 10x"


def measure(options: Options) -> Report:
    """Measure all parts, each in rounds of its own."""
    progress = options.progress
    killed = run(_killed(), options.plan(calls=200, slices=1, warm_up=5), progress)
    blocked = run(_blocked(), options.plan(calls=2_500, slices=4, warm_up=500), progress)
    crowd = run(_crowd(), options.plan(calls=500, slices=1, warm_up=100), progress)
    deadline = run(_deadline(), options.plan(calls=20, slices=1, warm_up=1), progress)
    broker = run(_broker(), options.plan(calls=5, slices=1, warm_up=1), progress)
    overload = run(_overload(), options.plan(calls=10, slices=1, warm_up=1), progress)
    groups: dict[str, Rounds] = {
        "worker killed": killed,
        "quick call, one worker blocked": blocked,
        "quick call, a crowd beside it": crowd,
        "deadline": deadline,
        "broker killed": broker,
        "overload": overload,
    }
    comparisons = [
        compare("faults.killed", _ms(p99(killed[_KILLED]))),
        compare("faults.whole", extra(killed[_KILLED], WHOLE_P99)),
        compare("faults.lost", extra(killed[_FINISHED], LOST)),
        compare("faults.blocked", p99(blocked[_BLOCKED]), p99(blocked[_IDLE])),
        compare("faults.blocked_slow", extra(blocked[_BLOCKED], SLOW_PERCENT)),
        compare("faults.crowd", p50(crowd[_CROWD]), p50(crowd[_ALONE])),
        compare("faults.crowd_busy", p50(crowd[_BUSY]), p50(crowd[_ALONE])),
        compare("faults.deadline", _ms(p99(deadline[_SPIN]))),
        compare("faults.broker", [ms / 1000 for ms in _ms(p50(broker[_BROKER]))]),
        compare("faults.goodput", extra(overload[_OVERLOAD], GOODPUT)),
        compare("faults.refused", _ms(p99(overload[_OVERLOAD]))),
        compare("faults.memory", extra(overload[_OVERLOAD], MEMORY)),
    ]
    return Report(
        scenario="faults",
        question=QUESTION,
        comparisons=comparisons,
        tables=[
            *(latency_table(title, rounds) for title, rounds in groups.items()),
            _load(overload),
        ],
        notes=[
            "A deadline's p99 is of 20 calls a round, so the slowest of them; a broker is killed "
            "once in the life of each pool.",
            "Calls that are queued do nothing, or sleep for 0.1 ms so that they leave the cores "
            "to others.",
        ],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _killed() -> list[Subject]:
    return [
        Subject(name=_KILLED, factory="subjects.faults:worker_killed"),
        Subject(name=_FINISHED, factory="subjects.faults:finished_then_killed"),
    ]


def _blocked() -> list[Subject]:
    factory = "subjects.faults:planned_calls"
    return [
        Subject(name=_IDLE, factory=factory),
        Subject(name=_BLOCKED, factory=factory, options={"beside_blocked": True}),
    ]


def _crowd() -> list[Subject]:
    factory = "subjects.faults:calls_in_crowd"
    return [
        Subject(name=_ALONE, factory=factory),
        Subject(name=_CROWD, factory=factory, options={"crowd_calls": "nap_100us"}),
        Subject(name=_BUSY, factory=factory, options={"crowd_calls": "nothing"}),
    ]


def _deadline() -> list[Subject]:
    return [Subject(name=_SPIN, factory="subjects.faults:deadline_of_a_spin")]


def _broker() -> list[Subject]:
    return [Subject(name=_BROKER, factory="subjects.faults:broker_killed")]


def _overload() -> list[Subject]:
    options = {"factor": FACTOR}
    return [Subject(name=_OVERLOAD, factory="subjects.overload:overloaded", options=options)]


def _ms(rounds_us: list[float]) -> list[float]:
    return [us / 1000 for us in rounds_us]


def _load(overload: Rounds) -> Table:
    measured = overload[_OVERLOAD]
    rows = []
    for name in measured[0].extra:
        found = spread(extra(measured, name))
        rows.append((name, number(found.median), f"{number(found.low)}..{number(found.high)}"))
    return Table("load", ("load", "median", "rounds"), rows)
