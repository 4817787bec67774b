"""What all clients of an in-process pool share: nodes, limits, hooks and threads.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import Raw

from pronghorn.broker.wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    NotFoundError,
    Outcome,
)
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.link import CODEC_MSGPACK, RunCall, RunChunk
from pronghorn.client.invocation import Params

from .dispatch import DispatchTable, Entry
from .execution import Execution
from .lifecycle import STOP_S, Hooks, run_start_hooks, run_stop_hooks
from .local_statistics import LocalStatistics
from .local_threads import CallThreads, LoopThread, pool_closed
from .loops import GRACE_S

NodeTask = asyncio.Task[Any]


class LocalHost:
    """The nodes of one pool and the threads that they run in.

    Attributes:
        execution: Runs requests.
        statistics: Counts what ends.
        tasks: Async nodes that run, with the loop of each; those included for which nobody waits.
    """

    def __init__(self, table: DispatchTable, hooks: Hooks, threads: int, limits: Limits) -> None:
        self.execution = Execution(os.getpid(), limits.result_bytes)
        self.statistics = LocalStatistics(entry.name for entry in table.entries)
        self.tasks: dict[NodeTask, asyncio.AbstractEventLoop] = {}
        self._table = table
        self._hooks = hooks
        self._limits = limits
        self._count = threads
        self._lock = threading.Lock()  # guards what follows
        self._tokens = 0  # the request number given out last
        self._closed = False
        self._threads: CallThreads | None = None  # made for the first submitted call
        self._loop: LoopThread | None = None  # made for the first async node of a sync client

    def start(self) -> None:
        """Run the start hooks.

        Raises:
            StartHookError: One has failed. The pool is closed then.
        """
        try:
            run_start_hooks(self._hooks, self._run_hook)
        except BaseException:
            self._hooks = Hooks()  # those for the stop are for who has started
            self.close()
            raise

    def message(
        self, node: str, params: Params, timeout_ms: float | None, depth: int = 0
    ) -> tuple[Entry, RunCall]:
        """Make the request that a broker would hand to a worker."""
        body, buffers = params
        entry = self._lookup(node)
        if len(buffers) > self._limits.buffers:
            raise _too_large("buffers", len(buffers), self._limits.buffers)
        self._check_size(len(body) + sum(memoryview(buffer).nbytes for buffer in buffers))
        return entry, RunCall(
            self._token(),
            0,
            entry.index,
            CODEC_MSGPACK,
            Raw(body),
            timeout_ms,
            len(buffers),
            depth,
        )

    def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> tuple[Entry, RunChunk]:
        """Make the chunk that a broker would hand to a worker."""
        entry = self._lookup(node)
        if entry.streams:
            why = f"{entry.name}: a streaming node can be called, not mapped"
            raise InvalidArgumentError(why, ErrorDetails(outcome="not_started", node=entry.name))
        self._check_size(len(items))
        return entry, RunChunk(self._token(), 0, entry.index, Raw(items), timeout_ms)

    def threads(self) -> CallThreads:
        """Return the threads of submitted calls."""
        with self._lock:
            self.check_open()
            if self._threads is None:
                self._threads = CallThreads(self._count)
            return self._threads

    def loop(self) -> LoopThread:
        """Return the loop that runs async nodes for sync clients."""
        with self._lock:
            self.check_open()
            return self._make_loop()

    def check_open(self, outcome: Outcome = "not_started") -> None:
        """Raise `BrokerLostError` if the pool is closed."""
        if self._closed:
            raise pool_closed(outcome)

    def is_async(self, node: str) -> bool:
        """Whether it is an async node."""
        try:
            return self._table.lookup(node).kind == "async"
        except NotFoundError:
            return False

    def close(self) -> None:
        """Refuse calls from now on, end those that run, then run the stop hooks; all in bounds."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for task, loop in self._tasks():
            if self._loop is None or loop is not self._loop.loop:
                with suppress(RuntimeError):  # its owner has closed it before its tasks had ended
                    loop.call_soon_threadsafe(task.cancel)
        if self._loop is not None:
            ours = self._loop.loop
            self._loop.end_tasks(lambda: {task for task, loop in self._tasks() if loop is ours})
        if self._threads is not None:
            self._threads.close()
        run_stop_hooks(self._hooks, partial(self._run_hook, timeout_s=STOP_S + GRACE_S))
        if self._loop is not None:
            self._loop.close()

    def _run_hook(self, hook: Coroutine[Any, Any, None], timeout_s: float | None = None) -> None:
        with self._lock:
            loop = self._make_loop()
        loop.run(hook, timeout_s=timeout_s)

    def _make_loop(self) -> LoopThread:
        if self._loop is None:
            self._loop = LoopThread()
        return self._loop

    def _tasks(self) -> list[tuple[NodeTask, asyncio.AbstractEventLoop]]:
        return list(self.tasks.items())

    def _lookup(self, node: str) -> Entry:
        self.check_open()
        return self._table.lookup(node)

    def _check_size(self, size: int) -> None:
        if size > self._limits.request_bytes:
            raise _too_large("bytes", size, self._limits.request_bytes)

    def _token(self) -> int:
        with self._lock:
            self._tokens += 1
            return self._tokens


def _too_large(unit: str, count: int, limit: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the request has {count} {unit}, the limit is {limit}", ErrorDetails(limit=limit)
    )
