"""The pool in one process: the same API, no broker, no processes; for tests and notebooks.

Params and results go through the same dispatch table, encoding and checks as in any worker, so that
a program sees the same values, types and errors. What needs processes is different, and only that:
a node that ends its process ends this one, and a `def` node can't be stopped at its deadline.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from types import TracebackType
from typing import Any, Self

from msgspec import Raw

from pronghorn.broker.wire.control import ModuleFailure
from pronghorn.broker.wire.embedding import StopImport, importing_nodes
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    PronghornError,
)
from pronghorn.broker.wire.limits import DEFAULT_LIMITS
from pronghorn.broker.wire.link import CODEC_MSGPACK, ChunkDone, Done, Failed, RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Result
from pronghorn.client.aio import AsyncClient
from pronghorn.client.invocation import Params, Target, result_of
from pronghorn.client.launch import PoolStartError
from pronghorn.client.mapping import MapPlan, Results
from pronghorn.client.sync import Client
from pronghorn.client.transport import Answer

from .dispatch import DispatchTable, Entry
from .execution import Execution, Word, failed
from .loader import load

ENDPOINT = "local:"
"""Stands for the endpoint of a pool that has none."""

_THREADS = 4  # of submitted calls


class LocalPool:
    """Nodes served in this process, for as long as this object is open.

    Args:
        *modules: What to serve: files, package or module names, entry points.
        workers: Number of threads that submitted calls share.

    Raises:
        PoolStartError: No node can be served.
    """

    def __init__(self, *modules: str | os.PathLike[str], workers: int = _THREADS) -> None:
        if importing_nodes():
            raise StopImport("a pool is started below: the module's nodes are those above")
        loaded = load([os.fspath(module) for module in modules])
        self.endpoint = ENDPOINT
        self.workers = workers
        self.failures = tuple(
            ModuleFailure(one.subject, f"{one.message}\n{one.traceback}".rstrip())
            for one in loaded.failures
        )
        if not loaded.entries:
            names = ", ".join(map(str, modules))
            raise PoolStartError(f"no node can be served from {names}", self.failures)
        self._host = _Host(DispatchTable(loaded.entries), workers)

    def client(self) -> Client:
        """Make a client."""
        return _LocalClient(_LocalTransport(self._host))

    def async_client(self) -> AsyncClient:
        """Make a client for asyncio; `async def` nodes run on the loop that calls them."""
        return _LocalAsyncClient(_LocalAsyncTransport(self._host))

    def close(self) -> None:
        """End the threads that were started; calls after it are refused."""
        self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _LocalClient(Client):
    """A client whose transport is this process."""

    def __init__(self, transport: "_LocalTransport") -> None:
        self.endpoint = ENDPOINT
        self._transport = transport


class _LocalAsyncClient(AsyncClient):
    """An async client whose transport is this process."""

    def __init__(self, transport: "_LocalAsyncTransport") -> None:
        self.endpoint = ENDPOINT
        self._transport = transport


class _Host:
    """The nodes and the threads that clients of one pool share."""

    def __init__(self, table: DispatchTable, threads: int) -> None:
        self.table = table
        self.execution = Execution(os.getpid(), DEFAULT_LIMITS.result_bytes)
        self._threads = threads
        self._lock = threading.Lock()  # guards what follows
        self._tokens = 0  # the request number given out last
        self._closed = False
        self._executor: ThreadPoolExecutor | None = None  # made for the first submitted call
        self._loop: _LoopThread | None = None  # made for the first async node of a sync client

    def message(self, node: str, params: Params, timeout_ms: float | None) -> tuple[Entry, RunCall]:
        """Make the request that a broker would hand to a worker."""
        body, buffers = params
        entry = self._lookup(node)
        return entry, RunCall(
            self._token(), 0, entry.index, CODEC_MSGPACK, Raw(body), timeout_ms, len(buffers)
        )

    def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> tuple[Entry, RunChunk]:
        """Make the chunk that a broker would hand to a worker."""
        entry = self._lookup(node)
        return entry, RunChunk(self._token(), 0, entry.index, Raw(items), timeout_ms)

    def executor(self) -> ThreadPoolExecutor:
        """Return the threads of submitted calls."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, "pronghorn-local")
            return self._executor

    def loop(self) -> "_LoopThread":
        """Return the loop that runs async nodes for sync clients."""
        with self._lock:
            if self._loop is None:
                self._loop = _LoopThread()
            return self._loop

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._executor is not None:
                self._executor.shutdown(wait=True, cancel_futures=True)
            if self._loop is not None:
                self._loop.close()

    def _lookup(self, node: str) -> Entry:
        if self._closed:
            raise BrokerLostError("the pool is closed")
        return self.table.lookup(node)

    def _token(self) -> int:
        with self._lock:
            self._tokens += 1
            return self._tokens


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="pronghorn-local-loop", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _LocalTransport:
    """Runs requests in the calling thread; those of async nodes on the pool's loop."""

    def __init__(self, host: _Host) -> None:
        self._host = host

    def connect(self) -> None:
        """There is nothing to connect to."""

    def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        try:
            entry, message = self._host.message(node, params, timeout_ms)
        except PronghornError as error:
            return _refused(error), ()
        buffers = _as_received(params[1])
        if entry.kind == "async":
            answer: Answer = self._host.loop().run(_call_async(self._host, entry, message, buffers))
            return answer
        return _call(self._host, entry, message, buffers)

    def submit(self, target: Target, params: Params, timeout_ms: float | None) -> "Future[Any]":
        def run() -> Any:
            reply, buffers = self.call(target.name, params, timeout_ms)
            return result_of(target, reply, buffers)

        return self._host.executor().submit(run)

    def map(self, plan: MapPlan, timeout_ms: float | None) -> Generator[Results, None, None]:
        while not plan.finished:
            for chunk in plan.next_chunks():
                plan.replied(chunk, self._chunk(plan.node, chunk.body, timeout_ms))
                yield from plan.results()
            yield from plan.results()

    def ping(self, timeout_s: float) -> float:
        return 0.0

    def close(self) -> None:
        """There is nothing to close; the threads are the pool's."""

    def _chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return _refused(error)
        if entry.kind == "async":
            return self._host.loop().run(_chunk_async(self._host, entry, message))
        context = _context(self._host, entry, message)
        return _to_reply(self._host.execution.chunk(entry, message, iter, context))[0]


class _LocalAsyncTransport:
    """Runs requests on the calling loop; those of threaded nodes in threads."""

    def __init__(self, host: _Host) -> None:
        self._host = host

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        try:
            entry, message = self._host.message(node, params, timeout_ms)
        except PronghornError as error:
            return _refused(error), ()
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return await _call_async(self._host, entry, message, buffers)
        if entry.kind == "thread":
            return await asyncio.to_thread(_call, self._host, entry, message, buffers)
        return _call(self._host, entry, message, buffers)

    async def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return _refused(error)
        if entry.kind == "async":
            return await _chunk_async(self._host, entry, message)
        context = _context(self._host, entry, message)
        return _to_reply(self._host.execution.chunk(entry, message, iter, context))[0]

    async def ping(self, timeout_s: float) -> float:
        return 0.0

    async def close(self) -> None:
        """There is nothing to close; the threads are the pool's."""


def _call(host: _Host, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Answer:
    due = _due(message)
    word = host.execution.call(entry, message, buffers, _context(host, entry, message))
    if due is not None and monotonic() > due:  # it could not be stopped, but it is late
        return _to_reply((failed(message.token, _late(entry, "executed")), ()))
    return _to_reply(word)


async def _call_async(
    host: _Host, entry: Entry, message: RunCall, buffers: Sequence[bytes]
) -> Answer:
    context = _context(host, entry, message)
    running = host.execution.call_async(entry, message, buffers, context)
    return _to_reply(await _until_due(entry, message, running))


async def _chunk_async(host: _Host, entry: Entry, message: RunChunk) -> object:
    running = host.execution.chunk_async(entry, message, _context(host, entry, message))
    return _to_reply(await _until_due(entry, message, running))[0]


async def _until_due(entry: Entry, message: RunCall | RunChunk, running: Any) -> Word:
    """Run a request until its deadline, at which it is cancelled."""
    if message.left_ms is None:
        word: Word = await running
        return word
    task = asyncio.ensure_future(running)
    await asyncio.wait([task], timeout=message.left_ms / 1000)
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
        return failed(message.token, _late(entry, "maybe_executed")), ()
    word = task.result()
    return word


def _context(host: _Host, entry: Entry, message: RunCall | RunChunk) -> Any:
    return host.execution.context(entry, message) if entry.takes_context else None


def _to_reply(word: Word) -> Answer:
    """Turn a worker's last word into the reply that a broker would make of it."""
    message, buffers = word
    reply: Result | MapResult | Error
    match message:
        case Done():
            reply = Result(message.token, message.value, message.buffers)
        case ChunkDone():
            run_ms = message.run_ns / 1e6
            reply = MapResult(message.token, message.values, message.failures, run_ms)
        case Failed():
            reply = Error(message.token, message.code, message.message, message.details)
    return reply, _as_received(buffers)


def _refused(error: PronghornError) -> Error:
    return Error(None, error.code, error.message, error.details)


def _late(entry: Entry, outcome: Any) -> DeadlineExceededError:
    details = ErrorDetails(outcome=outcome, node=entry.name)
    return DeadlineExceededError(f"{entry.name}: the deadline has passed", details)


def _due(message: RunCall) -> float | None:
    return None if message.left_ms is None else monotonic() + message.left_ms / 1000


def _as_received(buffers: Sequence[Any]) -> list[bytes]:
    """Copy buffers, so that both sides have values of their own, as if they had travelled."""
    return [bytes(buffer) for buffer in buffers]
