"""Recorded runs of workflows through a client, in a pool with a run host and a journal.

Mirror: tests/bench/subjects/test_flow_recorded.py.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from pronghorn.broker.journal.place import has_store
from pronghorn.broker.journal.store import Store
from pronghorn.broker.wire.messages import Durability
from pronghorn.client import AsyncClient, Pool

from ..figures import Measurement
from ..timing import Measure, check, time_each
from .calls import NODES, AsyncRunner
from .flow_runs import MIXED_OUTPUT, WORKERS, mixed, settle

COMMITS_PER_RUN = "commits per run"


@contextlib.contextmanager
def recorded_run_of_20(level: Durability) -> Iterator[Measure]:
    """Measure whole runs of 20 tasks in two branches at a durability, one after the other."""
    definition = mixed()
    with _pool() as (pool, _), pool.client() as client:

        def once() -> Any:
            return client.run(definition, name="n", durability=level)

        settle(once)
        yield lambda calls: time_each(once, MIXED_OUTPUT, calls)


@contextlib.contextmanager
def recorded_runs_at_once(level: Durability, count: int) -> Iterator[Measure]:
    """Keep so many of these runs open, and count the journal's commits meanwhile."""
    definition = mixed()

    async def once(client: AsyncClient, level: Durability = level) -> None:
        check(await client.run(definition, name="n", durability=level), MIXED_OUTPUT)

    async def caller(client: AsyncClient, runs: int) -> None:
        for _ in range(runs):
            await once(client)

    async def all_callers(client: AsyncClient, each: int) -> None:
        await asyncio.gather(*(caller(client, each) for _ in range(count)))

    with _pool() as (pool, folder), AsyncRunner(pool.async_client) as runner:
        runner.run(caller(runner.client, 20))

        def measure(calls: int) -> Measurement:
            each = max(1, calls // count)
            before, begin = _commits(folder), perf_counter_ns()
            runner.run(all_callers(runner.client, each))
            elapsed = perf_counter_ns() - begin
            runner.run(once(runner.client, "sync"))  # with which all before it is committed
            runs = each * count
            extra = {COMMITS_PER_RUN: (_commits(folder) - before) / runs}
            return Measurement(calls=runs, elapsed_ns=elapsed, extra=extra)

        yield measure


def _commits(folder: Path) -> int:
    """Count the commits of a journal; 0 if nothing was ever recorded."""
    if not has_store(folder):
        return 0
    store = Store.open_to_read(folder)
    try:
        return store.commits
    finally:
        store.close()


@contextlib.contextmanager
def _pool() -> Iterator[tuple[Pool, Path]]:
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder,
        Pool(NODES, workers=WORKERS, hosts=1, data=folder) as pool,
    ):
        yield pool, Path(folder)
