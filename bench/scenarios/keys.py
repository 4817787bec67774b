"""What does it cost to show a key, and what do connections that nobody uses?

A call over tcp loopback, encrypted and authenticated (CURVE), against `zmq.proxy` in C that does
the same; and a call beside 2,000 clients that have connected with keys and then said nothing, of
which the broker's memory is taken too. Left out: the network, and handshakes, which take 0.8 ms of
two cores each. Wrong if the idle ones, which answer heartbeats every 5 s, keep a core busy.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import Report, compare, extra, latency_table, p50, raw_rounds
from ..rounds import run
from ..subject import Subject
from ..subjects.keys import KIB_EACH
from .options import Options

QUESTION = "What does it cost to show a key, and what do idle connections?"
PINNED = (0,)
IDLE = 2_000

_OURS, _PROXY, _PLAIN = "Client.call with a key", "C zmq.proxy with CURVE", "Client.call"
_ALONE, _BESIDE = "no idle connections", "2,000 idle connections"
_ROUND_TRIP = "subjects.keys:sync_round_trip"


def measure(options: Options) -> Report:
    """Measure round trips, then the same beside idle connections."""
    plan = options.plan(calls=500, slices=4, warm_up=500)
    free = run(_round_trips(()), plan, options.progress)
    pinned = run(_round_trips(PINNED), plan, options.progress)
    idle = run(
        [
            Subject(name=_ALONE, factory=_ROUND_TRIP),
            Subject(name=_BESIDE, factory=_ROUND_TRIP, options={"idle": IDLE}),
        ],
        plan,
        options.progress,
    )
    return Report(
        scenario="keys",
        question=QUESTION,
        comparisons=[
            compare("keys.rtt", p50(free[_OURS]), p50(free[_PROXY])),
            compare("keys.rtt_pinned", p50(pinned[_OURS]), p50(pinned[_PROXY])),
            compare("keys.plain", p50(free[_OURS]), p50(free[_PLAIN])),
            compare("keys.idle_memory", extra(idle[_BESIDE], KIB_EACH)),
            compare("keys.idle_p50", p50(idle[_BESIDE]), p50(idle[_ALONE])),
        ],
        tables=[
            latency_table("cores free", free),
            latency_table("pinned to one core", pinned),
            latency_table("beside idle connections", idle),
        ],
        notes=[],
        raw={
            "cores free": raw_rounds(free),
            "pinned": raw_rounds(pinned),
            "idle": raw_rounds(idle),
        },
    )


def _round_trips(cpus: tuple[int, ...]) -> list[Subject]:
    return [
        Subject(name=_OURS, factory=_ROUND_TRIP, cpus=cpus),
        Subject(name=_PROXY, factory="floors.zeromq:proxied_by_key", cpus=cpus),
        Subject(name=_PLAIN, factory="subjects.calls:sync_round_trip", cpus=cpus),
    ]
