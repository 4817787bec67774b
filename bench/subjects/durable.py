"""Calls that are recorded, at every durability, on a pool with a folder for its journal.

Mirror: tests/bench/subjects/test_durable.py.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any

from pronghorn.broker.wire.messages import Durability
from pronghorn.client import Pool

from ..children import running
from ..figures import Measurement
from ..timing import Measure, time_each
from .calls import AsyncRunner, closed_loop, open_pool, parameters

CROWD = 1_000  # calls that are kept open beside those that are measured


@contextlib.contextmanager
def recorded(level: Durability, workers: int = 2, spin_ns: int = 0) -> Iterator[Measure]:
    """``Client.call`` at a durability, one after the other."""
    node, arguments, expected = parameters(0, spin_ns)
    with _pool(workers) as pool, pool.client() as plain:
        call = plain.within(durability=level).call
        yield lambda calls: time_each(lambda: call(node, **arguments), expected, calls)


@contextlib.contextmanager
def keyed() -> Iterator[Measure]:
    """``Client.call`` at durability ``sync``, each with a key of its own."""
    with _pool() as pool, pool.client() as client:
        keys = count()

        def once() -> Any:
            return client.call("add", a=1, b=2, durability="sync", key=f"order-{next(keys)}")

        yield lambda calls: time_each(once, 3, calls)


@contextlib.contextmanager
def started_runs() -> Iterator[Measure]:
    """``Client.start`` at durability ``sync``, and its result is waited for."""
    with _pool() as pool, pool.client() as client:
        yield lambda calls: time_each(
            lambda: client.start("add", a=1, b=2, durability="sync").result(), 3, calls
        )


@contextlib.contextmanager
def many_recorded(level: Durability, in_flight: int) -> Iterator[Measure]:
    """Keep so many calls of one `AsyncClient` open at a durability."""
    with _pool() as pool, AsyncRunner(pool.async_client) as runner:
        client = runner.client.within(durability=level)
        yield closed_loop(runner, lambda: client.call("add", a=1, b=2), 3, in_flight)


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
def _pool(workers: int = 2) -> Iterator[Pool]:
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder,
        open_pool(workers, data=folder) as pool,
    ):
        yield pool
