"""What does the link between broker and worker cost: ZeroMQ, or an AF_UNIX socket pair?

Two minimal brokers in one run that differ in that link alone (micro/link_brokers.py): clients
over ZeroMQ and workers on uvloop in both, the same messages, raw sockets, batches per peer. It
justifies why the real broker does not speak ZeroMQ to its workers, and by the windows why a
worker has no more slots than it has. Left out: everything a real broker decides, so the
difference is what matters, not the figures themselves.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from typing import Any

from ..figures import spread
from ..report import (
    Report,
    Table,
    compare,
    extra,
    latency_table,
    number,
    p50,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options
from .rtt import PINNED

QUESTION = "What does the link between broker and worker cost?"
OUTSTANDING = 1000
WINDOWS = (4, 16, 64, 256)

_ZEROMQ, _PAIR, _PROXY = "ZeroMQ ROUTER/DEALER", "AF_UNIX socket pair", "C zmq.proxy + worker"
_LINKS = {_ZEROMQ: "zeromq", _PAIR: "socketpair"}


def measure(options: Options) -> Report:
    """Measure both links free and pinned, alone and with many calls outstanding."""
    alone = options.plan(calls=500, slices=4, warm_up=500)
    many = options.plan(calls=20_000, slices=3, warm_up=5_000)
    groups: dict[str, Rounds] = {}
    for title, cpus in (("cores free", ()), ("one core", PINNED)):
        groups[f"round trip, {title}"] = run(_alone(cpus), alone, options.progress)
        groups[f"{OUTSTANDING:,} outstanding, {title}"] = run(_many(cpus), many, options.progress)
    alone_free, many_free, alone_pinned, many_pinned = groups.values()
    windows = run(_windows(), many, options.progress)
    tables: list[Table] = []
    for title, rounds in groups.items():
        if title.startswith("round"):
            tables.append(latency_table(title, rounds))
        else:
            tables += [rate_table(title, rounds, "calls/s"), _costs(title, rounds)]
    tables.append(rate_table(f"window, {OUTSTANDING:,} outstanding", windows, "calls/s"))
    groups["windows"] = windows
    return Report(
        scenario="links",
        question=QUESTION,
        comparisons=[
            compare("links.free", p50(alone_free[_PAIR]), p50(alone_free[_ZEROMQ])),
            compare("links.pinned", p50(alone_pinned[_PAIR]), p50(alone_pinned[_ZEROMQ])),
            compare("links.calls", per_second(many_free[_PAIR]), per_second(many_free[_ZEROMQ])),
            compare(
                "links.calls_pinned",
                per_second(many_pinned[_PAIR]),
                per_second(many_pinned[_ZEROMQ]),
            ),
        ],
        tables=tables,
        notes=[],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _alone(cpus: tuple[int, ...]) -> list[Subject]:
    subjects = [
        Subject(
            name=name, factory="micro.link_clients:round_trip", options={"link": link}, cpus=cpus
        )
        for name, link in _LINKS.items()
    ]
    return [*subjects, Subject(name=_PROXY, factory="floors.zeromq:proxied", cpus=cpus)]


def _many(cpus: tuple[int, ...]) -> list[Subject]:
    return [
        Subject(
            name=name,
            factory="micro.link_clients:outstanding",
            options=_with_outstanding(link),
            cpus=cpus,
        )
        for name, link in _LINKS.items()
    ]


def _windows() -> list[Subject]:
    return [
        Subject(
            name=f"{_PAIR}, window {window}",
            factory="micro.link_clients:outstanding",
            options=_with_outstanding("socketpair") | {"window": window},
        )
        for window in WINDOWS
    ]


def _with_outstanding(link: str) -> dict[str, Any]:
    return {"link": link, "count": OUTSTANDING}


def _costs(title: str, rounds: Rounds) -> Table:
    names = ("broker_cpu_us_per_call", "worker_cpu_us_per_call")
    rows = [
        (subject, *(number(spread(extra(measured, name)).median) for name in names))
        for subject, measured in rounds.items()
    ]
    return Table(title, ("CPU per call", "broker us", "workers us"), rows)
