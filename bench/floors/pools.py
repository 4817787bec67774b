"""The standard library's pools: ProcessPoolExecutor and multiprocessing.Pool, as they come.

What a Python program would use instead: no broker, no types, one language, pickled by reference.
They leave out what Pronghorn does (checking parameters, any client, crash isolation per call),
so a figure at par with them is a win of features, not of speed. The start method is the
interpreter's default.

Mirror: tests/bench/floors/test_pools.py.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from time import perf_counter_ns
from typing import Any

from ..figures import ALL_CPU, Measurement
from ..processes import family_cpu_ns
from ..timing import Measure, check, time_each
from .functions import add, count


@contextlib.contextmanager
def executor_round_trip(workers: int = 2) -> Iterator[Measure]:
    """``submit(add, 1, 2).result()``, one after the other."""
    with ProcessPoolExecutor(workers) as pool:

        def once() -> int:
            return pool.submit(add, 1, 2).result()

        yield lambda calls: time_each(once, 3, calls)


@contextlib.contextmanager
def pool_round_trip(workers: int = 2) -> Iterator[Measure]:
    """``Pool.apply(add, (1, 2))``, one after the other."""
    with multiprocessing.Pool(workers) as pool:

        def once() -> object:
            return pool.apply(add, (1, 2))

        yield lambda calls: time_each(once, 3, calls)


@contextlib.contextmanager
def executor_burst(workers: int = 2) -> Iterator[Measure]:
    """``submit`` of all calls, then the results of all."""
    with ProcessPoolExecutor(workers) as pool:

        def burst(calls: int) -> list[Any]:
            futures = [pool.submit(add, index, 1) for index in range(calls)]
            return [future.result() for future in futures]

        yield lambda calls: _time_burst(burst, calls)


@contextlib.contextmanager
def pool_burst(workers: int = 2) -> Iterator[Measure]:
    """``apply_async`` of all calls, then the results of all."""
    with multiprocessing.Pool(workers) as pool:

        def burst(calls: int) -> list[Any]:
            results = [pool.apply_async(add, (index, 1)) for index in range(calls)]
            return [result.get() for result in results]

        yield lambda calls: _time_burst(burst, calls)


@contextlib.contextmanager
def pool_starmap(workers: int = 2) -> Iterator[Measure]:
    """``starmap(add, …)`` over tuples at the default chunk size."""
    with multiprocessing.Pool(workers) as pool:

        def measure(calls: int) -> Measurement:
            items = [(index, 1) for index in range(calls)]
            begin = perf_counter_ns()
            results = pool.starmap(add, items)
            elapsed = perf_counter_ns() - begin
            check(results, list(range(1, calls + 1)))
            return Measurement(calls=calls, elapsed_ns=elapsed)

        yield measure


@contextlib.contextmanager
def pool_count(loops: int, workers: int) -> Iterator[Measure]:
    """``map(count, …)`` in few chunks: what the cores give with next to no overhead."""
    with multiprocessing.Pool(workers) as pool:

        def measure(calls: int) -> Measurement:
            begin = perf_counter_ns()
            results = pool.map(count, [loops] * calls)
            elapsed = perf_counter_ns() - begin
            check(results, [loops] * calls)
            return Measurement(calls=calls, elapsed_ns=elapsed)

        yield measure


def _time_burst(burst: Callable[[int], list[Any]], calls: int) -> Measurement:
    cpu_before = family_cpu_ns()
    begin = perf_counter_ns()
    results = burst(calls)
    elapsed = perf_counter_ns() - begin
    cpu = family_cpu_ns() - cpu_before
    check(results, list(range(1, calls + 1)))
    return Measurement(calls=calls, elapsed_ns=elapsed, extra={ALL_CPU: cpu / calls / 1000})
