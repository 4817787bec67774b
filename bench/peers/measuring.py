"""Measures a peer: lone calls one after the other, and so many at once. The subject of all peers.

Mirror: tests/bench/peers/test_measuring.py.
"""

import asyncio
import contextlib
import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import msgspec

from ..figures import Measurement
from ..timing import Measure, check, time_each, time_each_async

IN_FLIGHT: Final = (1, 8, 64, 512)
_BURSTS_NS: Final = 300_000_000
"""So long bursts of one size are made, and at least one; a slower one is not made again."""

_BURST_MAX_NS: Final = 3_000_000_000
"""A size whose burst took longer is the last: larger ones would take minutes."""


class Peer(NamedTuple):
    """How to call it: once, and so many at once; both sync or both async.

    Attributes:
        once: Runs ``add(1, 2)`` there and gives its result.
        burst: Hands over ``add(0, 1)``, ``add(1, 1)``, … and then awaits the results of all;
            `None` where there is no way to have several under way from one thread.
        loop: That the async ones belong to; `None`: a new one.
    """

    once: Callable[[], Any]
    burst: Callable[[int], Any] | None = None
    loop: asyncio.AbstractEventLoop | None = None


def rate_at(in_flight: int) -> str:
    """Name the figure that tells the rate of so many at once."""
    return f"calls/s, {in_flight} at once"


@contextlib.contextmanager
def measured(peer: str, at_once: bool = True) -> Iterator[Measure]:
    """Start a peer by the name of its module, for the time of a block.

    Args:
        peer: The name; after a colon that of the function, if it is not ``peer``.
        at_once: Whether to measure several at once too.
    """
    name, _, function = peer.partition(":")
    module = importlib.import_module(f"pronghorn.bench.peers.{name}")
    with getattr(module, function or "peer")() as made:
        yield lambda calls: _measure(made, calls, at_once=at_once)


def _measure(peer: Peer, calls: int, *, at_once: bool) -> Measurement:
    run = _runner(peer)
    if inspect.iscoroutinefunction(peer.once):
        alone: Measurement = run(time_each_async(peer.once, 3, calls))
    else:
        alone = time_each(peer.once, 3, calls)
    extra: dict[str, float] = {}
    if peer.burst is not None and at_once:
        for size in IN_FLIGHT:
            took_ns, count = _bursts(peer, run, size)
            extra[rate_at(size)] = count * 1e9 / took_ns
            if took_ns * size / count > _BURST_MAX_NS:
                break
    return msgspec.structs.replace(alone, extra=extra)


def _bursts(peer: Peer, run: Callable[[Awaitable[Any]], Any], size: int) -> tuple[int, int]:
    """Make bursts of a size; returns what they took and how many calls they were."""
    assert peer.burst is not None
    begin, count, took = perf_counter_ns(), 0, 0
    while took < _BURSTS_NS:
        results = peer.burst(size)
        if inspect.isawaitable(results):
            results = run(results)
        took = perf_counter_ns() - begin
        count += size
        check(list(results), list(range(1, size + 1)))
    return took, count


def _runner(peer: Peer) -> Callable[[Awaitable[Any]], Any]:
    loop = peer.loop
    if loop is not None:
        return loop.run_until_complete

    def run(awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return asyncio.run(wait())

    return run
