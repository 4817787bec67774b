"""loky's reusable executor. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two processes, that stay."""
    loky = importlib.import_module("loky")
    executor = loky.get_reusable_executor(max_workers=2, timeout=None)

    def burst(count: int) -> list[int]:
        futures = [executor.submit(add, index, 1) for index in range(count)]
        return [future.result() for future in futures]

    try:
        yield Peer(lambda: executor.submit(add, 1, 2).result(), burst)
    finally:
        executor.shutdown(kill_workers=True)
