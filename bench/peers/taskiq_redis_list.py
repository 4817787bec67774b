"""Taskiq with Redis for broker and results. Mirror: tests/bench/peers/test_peers.py.

A result is polled for; it does that each 0.2 s by itself and each millisecond here.
"""

import asyncio
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
_POLL_S = 0.001


def application() -> tuple[Any, Any]:
    """Make the broker that client and workers share; gives it and its task."""
    library = importlib.import_module("taskiq_redis")
    url = os.environ[_URL]
    made = library.ListQueueBroker(url).with_result_backend(
        library.RedisAsyncResultBackend(url, result_ex_time=60)
    )

    async def add_there(a: int, b: int) -> int:
        return add(a, b)

    return made, made.register_task(add_there, task_name="add")


def __getattr__(name: str) -> Any:
    """Give the worker processes their broker."""
    if name != "broker":
        raise AttributeError(name)
    return application()[0]


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """Two worker processes."""
    with redis() as url:
        os.environ[_URL] = url
        broker, task = application()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(broker.startup())
        workers = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "taskiq", "worker", "--workers", "2"),
                *("--log-level", "ERROR", "pronghorn.bench.peers.taskiq_redis_list:broker"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        async def ask(a: int, b: int) -> int:
            sent = await task.kiq(a, b)
            result = await sent.wait_result(check_interval=_POLL_S, timeout=60)
            value: int = result.return_value
            return value

        async def once() -> int:
            return await ask(1, 2)

        async def burst(count: int) -> list[int]:
            return list(await asyncio.gather(*(ask(index, 1) for index in range(count))))

        try:
            loop.run_until_complete(once())
            yield Peer(once, burst, loop)
        finally:
            workers.terminate()
            workers.wait()
            loop.run_until_complete(broker.shutdown())
            loop.close()
