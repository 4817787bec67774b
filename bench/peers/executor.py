"""ProcessPoolExecutor, as it comes. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two processes."""
    with ProcessPoolExecutor(2) as pool:

        def burst(count: int) -> list[int]:
            futures = [pool.submit(add, index, 1) for index in range(count)]
            return [future.result() for future in futures]

        yield Peer(lambda: pool.submit(add, 1, 2).result(), burst)
