"""How long does one call take, from `call` to its result, when nothing else goes on?

Groups of subjects measured against each other: with all cores free, with every process pinned to
one core (steadier: no wake-up crosses cores), and with 64 KiB of bytes there and back. Left out:
waiting under load. Wrong if something else keeps the cores busy, or if a subject's processes are
pinned and another's are not.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from typing import Any

from ..figures import spread
from ..floors import pyro
from ..floors.requests import PAYLOAD_64_KIB
from ..report import Report, Table, compare, extra, latency_table, number, p50, p99, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "How long does one call take when nothing else goes on?"
PINNED = (0,)

_SYNC, _ASYNC = "Client.call", "AsyncClient.call"
_PROXY, _DIRECT = "C zmq.proxy + worker", "DEALER-ROUTER direct"
_EXECUTOR, _APPLY, _PYRO = "ProcessPoolExecutor", "Pool.apply", "Pyro5"


def measure(options: Options) -> Report:
    """Measure all groups and compare."""
    plan = options.plan(calls=500, slices=4, warm_up=500)
    free = run(_free(), plan, options.progress)
    pinned = run(_pinned(), plan, options.progress)
    large = run(_large(()), plan, options.progress)
    large_pinned = run(_large(PINNED), plan, options.progress)
    comparisons = [
        compare("rtt.sync", p50(free[_SYNC]), p50(free[_PROXY])),
        compare("rtt.async", p50(free[_ASYNC]), p50(free[_PROXY])),
        compare("rtt.sync_pinned", p50(pinned[_SYNC]), p50(pinned[_PROXY])),
        compare("rtt.async_pinned", p50(pinned[_ASYNC]), p50(pinned[_PROXY])),
        compare("rtt.executor_p50", p50(free[_SYNC]), p50(free[_EXECUTOR])),
        compare("rtt.executor_p99", p99(free[_SYNC]), p99(free[_EXECUTOR])),
        compare("rtt.bytes_64k", p50(large[_SYNC]), p50(large[_PROXY])),
        compare("rtt.bytes_64k_pinned", p50(large_pinned[_SYNC]), p50(large_pinned[_PROXY])),
        compare("rtt.apply", p50(free[_SYNC]), p50(free[_APPLY])),
        compare("rtt.direct", p50(free[_SYNC]), p50(free[_DIRECT])),
    ]
    if _PYRO in free:
        comparisons.append(compare("rtt.pyro", p50(free[_SYNC]), p50(free[_PYRO])))
    groups: dict[str, Rounds] = {
        "cores free": free,
        "pinned to one core": pinned,
        "64 KiB, cores free": large,
        "64 KiB, pinned": large_pinned,
    }
    return Report(
        scenario="rtt",
        question=QUESTION,
        comparisons=comparisons,
        tables=[
            *(latency_table(title, rounds) for title, rounds in groups.items()),
            _costs({"free": free, "pinned": pinned, "64 KiB": large}),
        ],
        notes=[] if pyro.AVAILABLE else ["Pyro5 is not installed; its row is left out."],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _costs(groups: dict[str, Rounds]) -> Table:
    """Show where the CPU time of a call goes."""
    first = groups["free"][_SYNC][0].extra
    rows = [
        (
            f"{title}, {client}",
            *(number(spread(extra(rounds[client], cost)).median) for cost in first),
        )
        for title, rounds in groups.items()
        for client in (_SYNC, _ASYNC)
    ]
    columns = (cost.removesuffix(" CPU per call, us") for cost in first)
    return Table("costs", ("CPU per call, us", *columns), rows)


def _free() -> list[Subject]:
    subjects = [
        Subject(name=_SYNC, factory="subjects.calls:sync_round_trip"),
        Subject(name=_PROXY, factory="floors.zeromq:proxied"),
        Subject(name=_ASYNC, factory="subjects.calls:async_round_trip"),
        Subject(name=_EXECUTOR, factory="floors.pools:executor_round_trip"),
        Subject(name=_APPLY, factory="floors.pools:pool_round_trip"),
        Subject(name=_DIRECT, factory="floors.zeromq:direct"),
        Subject(name="msgspec there and back", factory="floors.local:codec"),
        Subject(name="function call", factory="floors.local:function_call"),
    ]
    if pyro.AVAILABLE:
        subjects.append(Subject(name=_PYRO, factory="floors.pyro:round_trip"))
    return subjects


def _pinned() -> list[Subject]:
    return [
        Subject(name=_SYNC, factory="subjects.calls:sync_round_trip", cpus=PINNED),
        Subject(name=_PROXY, factory="floors.zeromq:proxied", cpus=PINNED),
        Subject(name=_ASYNC, factory="subjects.calls:async_round_trip", cpus=PINNED),
        Subject(name=_DIRECT, factory="floors.zeromq:direct", cpus=PINNED),
        Subject(name=_EXECUTOR, factory="floors.pools:executor_round_trip", cpus=PINNED),
    ]


def _large(cpus: tuple[int, ...]) -> list[Subject]:
    payload: dict[str, Any] = {"payload_bytes": PAYLOAD_64_KIB}
    return [
        Subject(name=_SYNC, factory="subjects.calls:sync_round_trip", options=payload, cpus=cpus),
        Subject(name=_PROXY, factory="floors.zeromq:proxied", options=payload, cpus=cpus),
        Subject(name=_ASYNC, factory="subjects.calls:async_round_trip", options=payload, cpus=cpus),
    ]
