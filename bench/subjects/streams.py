"""Streams as subjects: how long a part takes from its `yield` to who reads it, and how many come.

A part holds the time at which it was made, by the clock that all processes of a machine share.

Mirror: tests/bench/subjects/test_streams.py.
"""

import contextlib
import time
from collections.abc import Iterator
from time import perf_counter_ns

from ..figures import Measurement
from ..processes import resident_bytes
from ..timing import Measure, check
from ..tree import Tree
from .calls import open_pool

APART_S = 0.0003
"""Between two parts, so that each travels alone; some round trips."""

BLOCK_BYTES = 8 * 1024
READ_EACH_S = 0.002
"""The slow reader's time for a part; the generator makes one in a hundredth of that."""

GROWTH = "memory that the tree has more than before, MiB"


@contextlib.contextmanager
def first_part(workers: int = 2) -> Iterator[Measure]:
    """Streams of one part each, one after the other."""
    with open_pool(workers) as pool, pool.client() as client:

        def measure(calls: int) -> Measurement:
            latencies: list[int] = []
            begin = perf_counter_ns()
            for _ in range(calls):
                for stamp in client.stream("stamps", count=1, apart_s=0.0):
                    latencies.append(perf_counter_ns() - stamp)
            elapsed = perf_counter_ns() - begin
            check(len(latencies), calls)
            return Measurement(calls=calls, elapsed_ns=elapsed, latencies_ns=latencies)

        yield measure


@contextlib.contextmanager
def next_part(workers: int = 2) -> Iterator[Measure]:
    """One stream whose parts come one by one."""
    with open_pool(workers) as pool, pool.client() as client:

        def measure(calls: int) -> Measurement:
            latencies: list[int] = []
            begin = perf_counter_ns()
            for stamp in client.stream("stamps", count=calls, apart_s=APART_S):
                latencies.append(perf_counter_ns() - stamp)
            elapsed = perf_counter_ns() - begin
            check(len(latencies), calls)
            return Measurement(calls=calls, elapsed_ns=elapsed, latencies_ns=latencies)

        yield measure


@contextlib.contextmanager
def rate(workers: int = 2) -> Iterator[Measure]:
    """One stream of as many parts as there are calls, read as fast as they come."""
    with open_pool(workers) as pool, pool.client() as client:

        def measure(calls: int) -> Measurement:
            begin = perf_counter_ns()
            total = sum(client.stream("numbers", count=calls))
            elapsed = perf_counter_ns() - begin
            check(total, calls * (calls - 1) // 2)
            return Measurement(calls=calls, elapsed_ns=elapsed)

        yield measure


@contextlib.contextmanager
def slow_reader(workers: int = 2) -> Iterator[Measure]:
    """One stream read a hundred times slower than it is made, and what that costs in memory."""
    with open_pool(workers) as pool, pool.client() as client:
        tree = Tree.of_this_process()

        def measure(calls: int) -> Measurement:
            stream = client.stream("blocks", count=calls + 1, size=BLOCK_BYTES)
            check(len(next(stream)), BLOCK_BYTES)
            before = _resident_mib(tree)
            begin = perf_counter_ns()
            read = 0
            for _ in stream:
                read += 1
                time.sleep(READ_EACH_S)  # the reader's own work stands still here
            elapsed = perf_counter_ns() - begin
            check(read, calls)
            growth = _resident_mib(tree) - before
            return Measurement(calls=calls, elapsed_ns=elapsed, extra={GROWTH: growth})

        yield measure


def _resident_mib(tree: Tree) -> float:
    return sum(resident_bytes(pid) for _, pid in tree.members()) / 2**20
