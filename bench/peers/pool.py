"""multiprocessing.Pool, as it comes. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import multiprocessing
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two processes."""
    with multiprocessing.Pool(2) as pool:

        def burst(count: int) -> list[int]:
            results = [pool.apply_async(add, (index, 1)) for index in range(count)]
            return [result.get() for result in results]

        yield Peer(lambda: pool.apply(add, (1, 2)), burst)
