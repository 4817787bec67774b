"""The transports of an in-process pool's clients: requests run where they are made.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import threading
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any

from pronghorn.broker.wire.errors import (
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.link import ChunkDone, Done, Failed, RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Result
from pronghorn.client.connection import closed_error
from pronghorn.client.invocation import Params, Target, refused, result_of
from pronghorn.client.mapping import MapPlan, Results
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import Entry
from .execution import Execution, Word, failed
from .local_host import LocalHost, NodeTask
from .loops import outside_loop


class _Requests:
    """The requests of one client."""

    def __init__(self, host: LocalHost) -> None:
        self._host = host
        self._closed = False
        # Async nodes that it waits for, with their loops: ended when the client is closed.
        self._running: dict[NodeTask, asyncio.AbstractEventLoop] = {}

    def _check_open(self, outcome: Outcome = "not_started") -> None:
        if self._closed:
            raise closed_error(outcome)
        self._host.check_open(outcome)

    def _end(self) -> None:
        """Refuse what comes from now on, and cancel what can be cancelled."""
        self._closed = True
        for task, loop in list(self._running.items()):
            loop.call_soon_threadsafe(task.cancel)

    def _call(self, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Answer:
        due = _due(message)
        context = self._context(entry, message)
        word = outside_loop(self._execution.call, entry, message, buffers, context)
        return _to_reply(_unless_late(due, entry, word))

    def _chunk(self, entry: Entry, message: RunChunk) -> object:
        due = _due(message)
        context = self._context(entry, message)
        word = outside_loop(self._execution.chunk, entry, message, context)
        return _to_reply(_unless_late(due, entry, word))[0]

    async def _call_async(self, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Answer:
        context = self._context(entry, message)
        running = self._execution.call_async(entry, message, buffers, context)
        return _to_reply(await self._until_due(entry, message, running, context))

    async def _chunk_async(self, entry: Entry, message: RunChunk) -> object:
        context = self._context(entry, message)
        running = self._execution.chunk_async(entry, message, context)
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
        self._running[task] = self._host.tasks[task] = loop
        task.add_done_callback(self._host.tasks.pop)
        try:
            timeout = None if message.left_ms is None else message.left_ms / 1000
            await asyncio.wait([task], timeout=timeout)
        finally:
            del self._running[task]
            if not task.done():
                if context is not None:
                    context.mark_cancelled()
                task.cancel()
        if not task.done():
            return failed(message.token, _late(entry, "maybe_executed")), ()
        self._check_open("maybe_executed")
        return task.result()

    def _context(self, entry: Entry, message: RunCall | RunChunk) -> Context | None:
        return self._execution.context(entry, message) if entry.takes_context else None

    @property
    def _execution(self) -> Execution:
        return self._host.execution


class LocalTransport(_Requests):
    """Runs requests in the calling thread; those of async nodes on the pool's loop."""

    def connect(self) -> None:
        """Refuse a pool that is closed; see `Transport` for this and the others."""
        self._check_open()

    def call(self, node: str, params: Params, timeout_ms: float | None, depth: int = 0) -> Answer:
        """Run a call."""
        self._check_open()
        try:
            entry, message = self._host.message(node, params, timeout_ms, depth)
        except InvalidArgumentError as error:
            return refused(error), ()
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return self._host.loop().run(self._call_async(entry, message, buffers))
        return self._call(entry, message, buffers)

    def submit(self, target: Target, params: Params, timeout_ms: float | None) -> "Future[Any]":
        """Run a call on the pool's loop or in one of its threads."""
        self._check_open()
        if self._host.is_async(target.name):
            return self._host.loop().start(self._run_async(target, params, timeout_ms))
        return self._host.threads().submit(self._run, target, params, timeout_ms)

    def map(self, plan: MapPlan, timeout_ms: float | None) -> Generator[Results, None, None]:
        """Run the chunks of a plan one after the other."""
        while not plan.finished:
            for chunk in plan.next_chunks():
                self._check_open()
                plan.replied(chunk, self._run_chunk(plan.node, chunk.body, timeout_ms))
                yield from plan.results()
            yield from plan.results()

    def ping(self, timeout_s: float) -> float:
        """Take no time."""
        self._check_open()
        return 0.0

    def close(self) -> None:
        """End the requests of this client."""
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


class LocalAsyncTransport(_Requests):
    """Runs requests on the calling loop; those of threaded nodes in threads."""

    async def connect(self) -> None:
        """Refuse a pool that is closed; see `AsyncTransport` for this and the others."""
        self._check_open()

    async def call(
        self, node: str, params: Params, timeout_ms: float | None, depth: int = 0
    ) -> Answer:
        """Run a call."""
        self._check_open()
        entry, message = self._host.message(node, params, timeout_ms, depth)
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return await self._call_async(entry, message, buffers)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._call, entry, message, buffers)
        return self._call(entry, message, buffers)

    async def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        """Run a chunk of a map."""
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
        """Take no time."""
        self._check_open()
        return 0.0

    async def close(self) -> None:
        """End the requests of this client."""
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


def _as_received(buffers: Sequence[Any]) -> list[bytes]:
    """Copy buffers, so that both sides have values of their own, as if they had travelled."""
    return [bytes(buffer) for buffer in buffers]
