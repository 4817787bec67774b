"""The pool in one process: the same API, no broker, no processes; for tests and notebooks.

Params and results go through the same dispatch table, encoding and checks as in any worker, so that
a program sees the same values, types and errors. What needs processes is different, and only that:
a node that ends its process ends this one, and a `def` node can't be stopped at its deadline.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Raw

from pronghorn.broker.wire.control import ModuleFailure
from pronghorn.broker.wire.embedding import StopImport, importing_nodes
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    NotFoundError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.link import CODEC_MSGPACK, ChunkDone, Done, Failed, RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Result
from pronghorn.client.aio import AsyncClient
from pronghorn.client.connection import closed_error
from pronghorn.client.invocation import Params, Target, refused, result_of
from pronghorn.client.launch import PoolStartError
from pronghorn.client.mapping import MapPlan, Results
from pronghorn.client.sync import Client
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import DispatchTable, Entry
from .execution import Execution, Word, failed
from .loader import load

ENDPOINT = "local:"
"""Stands for the endpoint of a pool that has none."""

_THREADS = 4  # of submitted calls
_GRACE_S = 1.0  # for async nodes that were cancelled by the end of the pool

T = TypeVar("T")


class LocalPool:
    """Nodes served in this process, for as long as this object is open.

    Args:
        *modules: What to serve: files, package or module names, entry points.
        workers: Number of threads that submitted calls share.
        limits: Limits of requests and results.

    Raises:
        PoolStartError: No node can be served.
        InvalidArgumentError: An argument is wrong.
    """

    def __init__(
        self,
        *modules: str | os.PathLike[str],
        workers: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if importing_nodes():
            raise StopImport("a pool is started below: the module's nodes are those above")
        self.workers = _THREADS if workers is None else workers
        if self.workers < 1:
            raise InvalidArgumentError(f"workers is {workers}; a pool needs at least 1")
        if not modules:
            raise InvalidArgumentError("name at least one module of nodes: a file, a package, …")
        loaded = load([os.fspath(module) for module in modules])
        self.endpoint = ENDPOINT
        self.endpoints: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.failures = tuple(
            ModuleFailure(one.subject, f"{one.message}\n{one.traceback}".rstrip())
            for one in loaded.failures
        )
        if not loaded.entries:
            names = ", ".join(map(str, modules))
            raise PoolStartError(f"no node can be served from {names}", self.failures)
        self._host = _Host(DispatchTable(loaded.entries), self.workers, limits or Limits())

    def client(self) -> Client:
        """Make a client."""
        return _LocalClient(_LocalTransport(self._host))

    def async_client(self) -> AsyncClient:
        """Make a client for asyncio; `async def` nodes run on the loop that calls them."""
        return _LocalAsyncClient(_LocalAsyncTransport(self._host))

    def close(self) -> None:
        """End the threads that were started; async nodes are cancelled, later calls refused."""
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

    def __init__(self, table: DispatchTable, threads: int, limits: Limits) -> None:
        self.table = table
        self.execution = Execution(os.getpid(), limits.result_bytes)
        self.left_alone: set[asyncio.Task[Word]] = set()  # nodes that nobody waits for any more
        self._limits = limits
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
        if len(buffers) > self._limits.buffers:
            raise _too_large("buffers", len(buffers), self._limits.buffers)
        self._check_size(len(body) + sum(memoryview(buffer).nbytes for buffer in buffers))
        return entry, RunCall(
            self._token(), 0, entry.index, CODEC_MSGPACK, Raw(body), timeout_ms, len(buffers)
        )

    def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> tuple[Entry, RunChunk]:
        """Make the chunk that a broker would hand to a worker."""
        entry = self._lookup(node)
        self._check_size(len(items))
        return entry, RunChunk(self._token(), 0, entry.index, Raw(items), timeout_ms)

    def executor(self) -> ThreadPoolExecutor:
        """Return the threads of submitted calls."""
        with self._lock:
            self.check_open()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, "pronghorn-local")
            return self._executor

    def loop(self) -> "_LoopThread":
        """Return the loop that runs async nodes for sync clients."""
        with self._lock:
            self.check_open()
            if self._loop is None:
                self._loop = _LoopThread()
            return self._loop

    def check_open(self, outcome: Outcome = "not_started") -> None:
        """Raise `BrokerLostError` if the pool is closed."""
        if self._closed:
            raise BrokerLostError("the pool is closed", ErrorDetails(outcome=outcome))

    def is_async(self, node: str) -> bool:
        """Whether it is an async node."""
        try:
            return self.table.lookup(node).kind == "async"
        except NotFoundError:
            return False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            executor, loop = self._executor, self._loop
            self._executor = self._loop = None
        if loop is not None:
            loop.close()
        if executor is not None:
            executor.shutdown(wait=True)  # what has not begun is refused: the pool is closed

    def _lookup(self, node: str) -> Entry:
        self.check_open()
        return self.table.lookup(node)

    def _check_size(self, size: int) -> None:
        if size > self._limits.request_bytes:
            raise _too_large("bytes", size, self._limits.request_bytes)

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

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine; cancelling its future cancels it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("an async node that waits here for another one would wait for ever")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; what breaks off the wait cancels it."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE_S)


class _Requests:
    """The requests of one client."""

    def __init__(self, host: _Host) -> None:
        self._host = host
        self._closed = False
        # Async nodes that run for it, with their loops: ended when the client is closed.
        self._running: dict[asyncio.Task[Word], asyncio.AbstractEventLoop] = {}

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error("not_started")
        self._host.check_open()

    def _end(self) -> None:
        """Refuse what comes from now on, and cancel what can be cancelled."""
        self._closed = True
        for task, loop in list(self._running.items()):
            loop.call_soon_threadsafe(task.cancel)

    def _call(self, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Answer:
        due = _due(message)
        word = self._host.execution.call(entry, message, buffers, self._context(entry, message))
        return _to_reply(_unless_late(due, entry, word))

    def _chunk(self, entry: Entry, message: RunChunk) -> object:
        due = _due(message)
        context = self._context(entry, message)
        word = self._host.execution.chunk(entry, message, iter, context)
        return _to_reply(_unless_late(due, entry, word))[0]

    async def _call_async(self, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Answer:
        context = self._context(entry, message)
        running = self._host.execution.call_async(entry, message, buffers, context)
        return _to_reply(await self._until_due(entry, message, running, context))

    async def _chunk_async(self, entry: Entry, message: RunChunk) -> object:
        context = self._context(entry, message)
        running = self._host.execution.chunk_async(entry, message, context)
        return _to_reply(await self._until_due(entry, message, running, context))[0]

    async def _until_due(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        running: Coroutine[Any, Any, Word],
        context: Context | None,
    ) -> Word:
        """Run an async node until its deadline, or until nobody waits for it: then it is cancelled.

        As in a worker, its end is not waited for then.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(running)
        self._running[task] = loop
        try:
            timeout = None if message.left_ms is None else message.left_ms / 1000
            await asyncio.wait([task], timeout=timeout)
        except asyncio.CancelledError:
            self._host.check_open("maybe_executed")  # else it is the caller who cancels
            raise
        finally:
            del self._running[task]
            if not task.done():
                if context is not None:
                    context.mark_cancelled()
                task.cancel()
                self._host.left_alone.add(task)
                task.add_done_callback(self._host.left_alone.discard)
        if not task.done():
            return failed(message.token, _late(entry, "maybe_executed")), ()
        if self._closed:
            raise closed_error("maybe_executed")
        return task.result()

    def _context(self, entry: Entry, message: RunCall | RunChunk) -> Context | None:
        return self._host.execution.context(entry, message) if entry.takes_context else None


class _LocalTransport(_Requests):
    """Runs requests in the calling thread; those of async nodes on the pool's loop."""

    def connect(self) -> None:
        self._check_open()

    def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        self._check_open()
        try:
            entry, message = self._host.message(node, params, timeout_ms)
        except InvalidArgumentError as error:
            return refused(error), ()
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return self._host.loop().run(self._call_async(entry, message, buffers))
        return self._call(entry, message, buffers)

    def submit(self, target: Target, params: Params, timeout_ms: float | None) -> "Future[Any]":
        self._check_open()
        if self._host.is_async(target.name):
            return self._host.loop().start(self._run_async(target, params, timeout_ms))
        return self._host.executor().submit(self._run, target, params, timeout_ms)

    def map(self, plan: MapPlan, timeout_ms: float | None) -> Generator[Results, None, None]:
        while not plan.finished:
            for chunk in plan.next_chunks():
                self._check_open()
                plan.replied(chunk, self._run_chunk(plan.node, chunk.body, timeout_ms))
                yield from plan.results()
            yield from plan.results()

    def ping(self, timeout_s: float) -> float:
        self._check_open()
        return 0.0

    def close(self) -> None:
        self._end()

    def _run(self, target: Target, params: Params, timeout_ms: float | None) -> Any:
        reply, buffers = self.call(target.name, params, timeout_ms)
        return result_of(target, reply, buffers)

    async def _run_async(self, target: Target, params: Params, timeout_ms: float | None) -> Any:
        entry, message = self._host.message(target.name, params, timeout_ms)
        reply, buffers = await self._call_async(entry, message, _as_received(params[1]))
        return result_of(target, reply, buffers)

    def _run_chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return refused(error)
        if entry.kind == "async":
            return self._host.loop().run(self._chunk_async(entry, message))
        return self._chunk(entry, message)


class _LocalAsyncTransport(_Requests):
    """Runs requests on the calling loop; those of threaded nodes in threads."""

    async def connect(self) -> None:
        self._check_open()

    async def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        self._check_open()
        entry, message = self._host.message(node, params, timeout_ms)
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return await self._call_async(entry, message, buffers)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._call, entry, message, buffers)
        return self._call(entry, message, buffers)

    async def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        self._check_open()
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return refused(error)
        if entry.kind == "async":
            return await self._chunk_async(entry, message)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._chunk, entry, message)
        return self._chunk(entry, message)

    async def ping(self, timeout_s: float) -> float:
        self._check_open()
        return 0.0

    async def close(self) -> None:
        self._end()


def _to_reply(word: Word) -> Answer:
    """Turn a worker's last word into the reply that a broker would make of it."""
    message, buffers = word
    reply: Result | MapResult | Error
    match message:
        case Done():
            reply = Result(message.token, message.value, message.buffers)
        case ChunkDone():
            for failure in message.failures or ():
                _raise_interrupt(failure.details)
            run_ms = message.run_ns / 1e6
            reply = MapResult(message.token, message.values, message.failures, run_ms)
        case Failed():
            _raise_interrupt(message.details)
            reply = Error(message.token, message.code, message.message, message.details)
    return reply, _as_received(buffers)


def _raise_interrupt(details: ErrorDetails) -> None:
    """Let a Ctrl-C that struck in a node do to this program what it is meant to."""
    in_main = threading.current_thread() is threading.main_thread()
    if details.exception == "KeyboardInterrupt" and in_main:
        raise KeyboardInterrupt


def _unless_late(due: float | None, entry: Entry, word: Word) -> Word:
    """Replace the last word on a `def` node that could not be stopped at its deadline."""
    if due is None or monotonic() <= due:
        return word
    return failed(word[0].token, _late(entry, "executed")), ()


def _late(entry: Entry, outcome: Outcome) -> DeadlineExceededError:
    details = ErrorDetails(outcome=outcome, node=entry.name)
    return DeadlineExceededError(f"{entry.name}: the deadline has passed", details)


def _due(message: RunCall | RunChunk) -> float | None:
    return None if message.left_ms is None else monotonic() + message.left_ms / 1000


def _too_large(unit: str, count: int, limit: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"the request has {count} {unit}, the limit is {limit}", ErrorDetails(limit=limit)
    )


def _as_received(buffers: Sequence[Any]) -> list[bytes]:
    """Copy buffers, so that both sides have values of their own, as if they had travelled."""
    return [bytes(buffer) for buffer in buffers]
