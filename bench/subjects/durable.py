"""Calls that are recorded, at every durability, on a pool with a folder for its journal.

Mirror: tests/bench/subjects/test_durable.py.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from time import perf_counter_ns

from pronghorn.broker.wire.messages import Durability
from pronghorn.client import Pool

from ..children import running
from ..figures import Measurement
from ..timing import Measure, check, time_each
from .calls import NODES, AsyncRunner

CROWD = 1_000  # calls that are kept open beside those that are measured


@contextlib.contextmanager
def recorded(level: Durability) -> Iterator[Measure]:
    """``Client.call`` at a durability, one after the other."""
    with _pool() as pool, pool.client() as plain:
        client = plain.within(durability=level)
        yield lambda calls: time_each(lambda: client.call("add", a=1, b=2), 3, calls)


@contextlib.contextmanager
def many_recorded(level: Durability, count: int) -> Iterator[Measure]:
    """Keep so many calls of one `AsyncClient` open at a durability."""
    with _pool() as pool, AsyncRunner(pool) as runner:
        call = runner.client.within(durability=level).call

        async def caller(calls: int) -> None:
            for _ in range(calls):
                check(await call("add", a=1, b=2), 3)

        async def all_callers(calls: int) -> Measurement:
            each = max(1, calls // count)
            begin = perf_counter_ns()
            await asyncio.gather(*(caller(each) for _ in range(count)))
            return Measurement(calls=each * count, elapsed_ns=perf_counter_ns() - begin)

        yield lambda calls: runner.run(all_callers(calls))


@contextlib.contextmanager
def beside(level: Durability) -> Iterator[Measure]:
    """``Client.call`` that is not recorded, beside `CROWD` calls of another client that are."""
    with _pool() as pool, pool.client() as client:

        def measure(calls: int) -> Measurement:
            arguments = (pool.endpoint, "nothing", str(CROWD), level)
            with running("pronghorn.bench.subjects.crowd", *arguments):
                return time_each(lambda: client.call("add", a=1, b=2), 3, calls)

        yield measure


@contextlib.contextmanager
def _pool() -> Iterator[Pool]:
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder,
        Pool(NODES, workers=2, data=folder) as pool,
    ):
        yield pool
