"""Dask: a local cluster of two processes. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two workers of one thread each, no dashboard; results are not shared between calls."""
    distributed = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    )
    with cluster, distributed.Client(cluster) as client:

        def burst(count: int) -> list[int]:
            futures = [client.submit(add, index, 1, pure=False) for index in range(count)]
            found: list[int] = client.gather(futures)
            return found

        yield Peer(lambda: client.submit(add, 1, 2, pure=False).result(), burst)
