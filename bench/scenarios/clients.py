"""How long does a call take from another language, beside what ZeroMQ itself takes there?

The example client for Node.js against a pool, and the same client against a C proxy with a worker
that answers at once: with all cores free, and pinned to one. Left out: other languages, load. Wrong
if Node.js has not compiled its hot paths yet, which the warm-up is for.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import Report, compare, latency_table, p50, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from ..subjects import node_client
from .options import Options

QUESTION = "How long does one call take from Node.js?"
PINNED = (0,)
MISSING = "Node.js or the client's packages are missing (scripts/_clients); nothing is measured."

_CLIENT, _PROXY = "Node.js client", "Node.js client, C zmq.proxy + worker"


def measure(options: Options) -> Report:
    """Measure and compare."""
    if not node_client.is_available():
        return Report(
            scenario="clients",
            question=QUESTION,
            comparisons=[],
            tables=[],
            notes=[MISSING],
            raw={},
        )
    plan = options.plan(calls=500, slices=4, warm_up=2000)
    groups: dict[str, Rounds] = {
        "cores free": run(_subjects(()), plan, options.progress),
        "pinned to one core": run(_subjects(PINNED), plan, options.progress),
    }
    free, pinned = groups.values()
    return Report(
        scenario="clients",
        question=QUESTION,
        comparisons=[
            compare("clients.node", p50(free[_CLIENT]), p50(free[_PROXY])),
            compare("clients.node_pinned", p50(pinned[_CLIENT]), p50(pinned[_PROXY])),
        ],
        tables=[latency_table(title, rounds) for title, rounds in groups.items()],
        notes=[],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _subjects(cpus: tuple[int, ...]) -> list[Subject]:
    return [
        Subject(name=_CLIENT, factory="subjects.node_client:round_trip", cpus=cpus),
        Subject(name=_PROXY, factory="subjects.node_client:proxied", cpus=cpus),
    ]
