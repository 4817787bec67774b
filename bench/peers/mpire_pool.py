"""mpire's WorkerPool. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two processes, kept alive from one call to the next as its manual advises."""
    mpire = importlib.import_module("mpire")
    with mpire.WorkerPool(n_jobs=2, keep_alive=True) as pool:

        def burst(count: int) -> list[int]:
            results = [pool.apply_async(add, (index, 1)) for index in range(count)]
            return [result.get() for result in results]

        yield Peer(lambda: pool.apply(add, (1, 2)), burst)
