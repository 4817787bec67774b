"""ipyparallel: two engines and a load-balanced view. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """A local cluster."""
    library = importlib.import_module("ipyparallel")
    with library.Cluster(n=2, log_level=40) as client:
        client.wait_for_engines(2, interactive=False)
        view = client.load_balanced_view()

        def burst(count: int) -> list[int]:
            results = [view.apply_async(add, index, 1) for index in range(count)]
            return [result.get() for result in results]

        yield Peer(lambda: view.apply_sync(add, 1, 2), burst)
