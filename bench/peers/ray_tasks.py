"""Ray: tasks on a local cluster of two CPUs. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import os
from collections.abc import Iterator

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """A local cluster, without dashboard and usage reports."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    remote = ray.remote(add)

    def burst(count: int) -> list[int]:
        found: list[int] = ray.get([remote.remote(index, 1) for index in range(count)])
        return found

    try:
        yield Peer(lambda: ray.get(remote.remote(1, 2)), burst)
    finally:
        ray.shutdown()
