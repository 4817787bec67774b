"""Pronghorn as the peers are measured: a pool of two workers.

It runs in the benchmarks' own environment. Lone calls by `Client`, several by `AsyncClient`.

Mirror: tests/bench/peers/test_peers.py.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import uvloop

from pronghorn.client import Pool

from ..subjects.calls import NODES
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Calls that are not recorded."""
    with Pool(NODES, workers=2) as pool, pool.client() as client, _bursts(pool) as (burst, _):
        yield Peer(lambda: client.call("add", a=1, b=2), burst)


@contextlib.contextmanager
def durable() -> Iterator[Peer]:
    """Calls whose records are synced to disk before they are answered."""
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder,
        Pool(NODES, workers=2, data=folder) as pool,
        pool.client() as client,
        _bursts(pool, durability="sync") as (burst, _),
    ):
        kept = client.within(durability="sync")
        yield Peer(lambda: kept.call("add", a=1, b=2), burst)


@contextlib.contextmanager
def _bursts(pool: Pool, **within: Any) -> Iterator[tuple[Any, None]]:
    """Give what makes so many calls at once, on a loop that lasts as long as the block."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        client = pool.async_client()
        caller = client.within(**within) if within else client

        async def together(count: int) -> list[Any]:
            return list(
                await asyncio.gather(*(caller.call("add", index, 1) for index in range(count)))
            )

        try:
            yield (lambda count: runner.run(together(count))), None
        finally:
            runner.run(client.aclose())
