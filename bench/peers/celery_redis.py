"""Celery with Redis for broker and results. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ..floors.functions import add
from .measuring import Peer
from .redis_server import redis

_URL = "PRONGHORN_BENCH_REDIS"


def app() -> tuple[Any, Any]:
    """Make the application that client and worker share; gives it and its task."""
    celery = importlib.import_module("celery")
    url = os.environ[_URL]
    made = celery.Celery("peer", broker=url, backend=url)
    made.conf.update(worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
    return made, made.task(name="add")(add)


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """A worker with two processes (prefork), without gossip, mingle and heartbeat."""
    with redis() as url:
        os.environ[_URL] = url
        _, task = app()
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "pronghorn.bench.peers.celery_redis"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            task.delay(1, 2).get(timeout=60)

            def burst(count: int) -> list[int]:
                results = [task.delay(index, 1) for index in range(count)]
                return [result.get(timeout=60) for result in results]

            yield Peer(lambda: task.delay(1, 2).get(timeout=60), burst)
        finally:
            worker.terminate()
            worker.wait()


def main() -> None:
    """Run the worker."""
    made, _ = app()
    options = ["--pool=prefork", "--concurrency=2", "--loglevel=ERROR"]
    made.worker_main(
        ["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"]
    )


if __name__ == "__main__":
    main()
