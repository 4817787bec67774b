"""Pronghorn as a subject: an embedded pool of its own per subject, called as a user would call it.

Everything goes through the public API of the installed package. Every result is checked. A
subject that is pinned pins its pool to the same cores, as `serve --cpus` does.

Mirror: tests/bench/subjects/test_calls.py.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
import uvloop

from pronghorn.client import AsyncClient, Pool

from ..figures import ALL_CPU, Measurement
from ..processes import family_cpu_ns
from ..timing import Measure, check, time_each, time_each_async
from ..tree import Tree

NODES = Path(__file__).parent.parent / "nodes.py"  # as a file: modules below pronghorn. are its own


def open_pool(workers: int, *, data: str | None = None, hosts: int | None = None) -> Pool:
    """Start a pool that serves our nodes on the cores that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    pinned = len(allowed) < (os.cpu_count() or 1)
    return Pool(NODES, workers=workers, cpus=allowed if pinned else (), data=data, hosts=hosts)


def parameters(payload_bytes: int, spin_ns: int) -> tuple[str, dict[str, Any], object]:
    """Return node, parameters and result of the call to measure."""
    if payload_bytes:
        value = bytes(payload_bytes)
        return "echo", {"value": value}, value
    if spin_ns:
        return "add_after", {"a": 1, "b": 2, "spin_ns": spin_ns}, 3
    return "add", {"a": 1, "b": 2}, 3


@contextlib.contextmanager
def sync_round_trip(
    payload_bytes: int = 0, workers: int = 2, spin_ns: int = 0
) -> Iterator[Measure]:
    """``Client.call``, one after the other."""
    node, arguments, expected = parameters(payload_bytes, spin_ns)
    with open_pool(workers) as pool, pool.client() as client:
        call = client.call
        yield _with_costs(lambda calls: time_each(lambda: call(node, **arguments), expected, calls))


@contextlib.contextmanager
def async_round_trip(
    payload_bytes: int = 0, workers: int = 2, spin_ns: int = 0
) -> Iterator[Measure]:
    """``await AsyncClient.call`` on uvloop, one after the other."""
    node, arguments, expected = parameters(payload_bytes, spin_ns)
    with open_pool(workers) as pool, AsyncRunner(pool.async_client) as runner:
        call = runner.client.call
        yield _with_costs(
            lambda calls: runner.run(
                time_each_async(lambda: call(node, **arguments), expected, calls)
            )
        )


@contextlib.contextmanager
def async_burst(workers: int = 2, spin_ns: int = 0) -> Iterator[Measure]:
    """All calls at once: ``asyncio.gather`` over ``AsyncClient.call`` on uvloop."""
    with open_pool(workers) as pool, AsyncRunner(pool.async_client) as runner:
        yield all_at_once(runner, spin_ns)


def all_at_once(runner: "AsyncRunner", spin_ns: int = 0) -> Measure:
    """Make all calls at once, and tell what they cost in the processes of this one's pool."""
    call = runner.client.call
    tree = Tree.of_this_process()

    async def gather(calls: int) -> Measurement:
        stop_clock = tree.cpu_us_per_call(calls)
        cpu_before = family_cpu_ns()
        begin = perf_counter_ns()
        if spin_ns:
            waiting = [call("add_after", a=i, b=1, spin_ns=spin_ns) for i in range(calls)]
        else:
            waiting = [call("add", a=index, b=1) for index in range(calls)]
        results = await asyncio.gather(*waiting)
        elapsed = perf_counter_ns() - begin
        cpu = family_cpu_ns() - cpu_before
        costs = {ALL_CPU: cpu / calls / 1000} | stop_clock() | tree.memory_mib()
        check(results, list(range(1, calls + 1)))
        return Measurement(calls=calls, elapsed_ns=elapsed, extra=costs)

    return lambda calls: runner.run(gather(calls))


@contextlib.contextmanager
def map_dicts(workers: int = 2) -> Iterator[Measure]:
    """``Client.map("add", …)`` over dicts, results in order, types checked."""
    with open_pool(workers) as pool, pool.client() as client:

        def measure(calls: int) -> Measurement:
            items = [{"a": index, "b": 1} for index in range(calls)]
            begin = perf_counter_ns()
            results = list(client.map("add", items))
            elapsed = perf_counter_ns() - begin
            check(results, list(range(1, calls + 1)))
            return Measurement(calls=calls, elapsed_ns=elapsed)

        yield measure


@contextlib.contextmanager
def kept_outstanding(
    node: str, arguments: dict[str, Any], expected: object, count: int, workers: int
) -> Iterator[Measure]:
    """`count` callers on one `AsyncClient`, each with one call outstanding: a closed loop."""
    with open_pool(workers) as pool, AsyncRunner(pool.async_client) as runner:
        client = runner.client
        yield closed_loop(runner, lambda: client.call(node, **arguments), expected, count)


def closed_loop(
    runner: "AsyncRunner", call: Callable[[], Awaitable[object]], expected: object, count: int
) -> Measure:
    """Have so many callers, each with one call outstanding."""

    async def caller(calls: int) -> None:
        for _ in range(calls):
            check(await call(), expected)

    async def all_callers(calls: int) -> Measurement:
        each = max(1, calls // count)
        begin = perf_counter_ns()
        await asyncio.gather(*(caller(each) for _ in range(count)))
        return Measurement(calls=each * count, elapsed_ns=perf_counter_ns() - begin)

    return lambda calls: runner.run(all_callers(calls))


def _with_costs(measure: Measure) -> Measure:
    """Add what a call costs in each process, read before and after."""
    tree = Tree.of_this_process()

    def measure_with_costs(calls: int) -> Measurement:
        stop_clock = tree.cpu_us_per_call(calls)
        measured = measure(calls)
        return msgspec.structs.replace(measured, extra=stop_clock())

    return measure_with_costs


class AsyncRunner:
    """One uvloop and one `AsyncClient` on it, kept between measurements."""

    def __init__(self, connect: Callable[[], AsyncClient]) -> None:
        self._make = connect
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.client: AsyncClient

    def __enter__(self) -> "AsyncRunner":
        self._runner.__enter__()
        self.client = self.run(self._connect())
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.run(self.client.aclose())
        finally:
            self._runner.close()

    def run(self, measuring: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop to its end."""
        return self._runner.run(measuring)

    async def _connect(self) -> AsyncClient:
        return await self._make().__aenter__()
