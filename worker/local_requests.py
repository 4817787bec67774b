"""The transports of an in-process pool's clients: requests run where they are made.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.link import ChunkDone, Done, Failed, RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Result
from pronghorn.broker.wire.statistics import STATS
from pronghorn.broker.wire.traceparent import well_formed
from pronghorn.client.connection import closed_error
from pronghorn.client.inbox import OnEvent
from pronghorn.client.invocation import Params, Target, refused, result_of
from pronghorn.client.mapping import MapPlan, Results
from pronghorn.client.stopwatch import Extras
from pronghorn.client.streaming import call_telling
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import Entry
from .execution import Execution, Word, failed
from .local_host import LocalHost, NodeTask
from .local_streams import (
    LocalArrivals,
    LocalAsyncArrivals,
    LocalChannel,
    Parts,
    ThreadSteps,
    as_stream,
    no_generator,
    put_into,
    raise_told,
)
from .loops import outside_loop
from .streaming import AsyncSteps, Steps

AnyWord = TypeVar("AnyWord")

_NO_JOURNAL = "an in-process pool has no journal: use a Pool with data=..."


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

    def _call(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None = None,
        extras: Extras | None = None,
    ) -> Answer:
        due = _due(message)
        context = context or self._context(entry, message, extras=extras)
        run = self._execution.collect if entry.streams else self._execution.call
        word = outside_loop(run, entry, message, buffers, context)
        return self._ended(entry, _unless_late(due, entry, word), extras)

    def _chunk(self, entry: Entry, message: RunChunk, extras: Extras | None) -> object:
        due = _due(message)
        context = self._context(entry, message, extras=extras)
        word = outside_loop(self._execution.chunk, entry, message, context)
        return self._ended(entry, _unless_late(due, entry, word))[0]

    async def _call_async(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None = None,
        extras: Extras | None = None,
    ) -> Answer:
        context = context or self._context(entry, message, extras=extras)
        run = self._execution.collect_async if entry.streams else self._execution.call_async
        running = run(entry, message, buffers, context)
        word = await self._until_due(entry, message, running, context)
        return self._ended(entry, word, extras)

    async def _chunk_async(self, entry: Entry, message: RunChunk, extras: Extras | None) -> object:
        context = self._context(entry, message, extras=extras)
        running = self._execution.chunk_async(entry, message, context)
        return self._ended(entry, await self._until_due(entry, message, running, context))[0]

    async def _until_due(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        running: Coroutine[Any, Any, AnyWord],
        context: Context | None,
        due: float | None = None,
    ) -> AnyWord | Word:
        """Run an async node, or a step of one, until its deadline.

        It is cancelled then, and when nobody waits for it any more.

        As in a worker, its end is not waited for then.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(running)
        self._running[task] = self._host.tasks[task] = loop
        task.add_done_callback(self._host.tasks.pop)
        try:
            timeout = None if message.left_ms is None else message.left_ms / 1000
            if due is not None:
                timeout = due - monotonic()
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

    def _ended(self, entry: Entry, word: Word, extras: Extras | None = None) -> Answer:
        last = word[0]
        self._host.statistics.count(entry.name, last)
        if extras is not None and extras.stopwatch is not None:
            extras.stopwatch.ran(last.run_ns)
        return _to_reply(word)

    def _steps(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
        parts: Parts,
    ) -> Steps | AsyncSteps | Error:
        """Make a generator ready to be driven; or tell why there is none."""
        if not entry.streams:
            return no_generator(entry)
        stream = as_stream(message)
        try:
            return self._execution.steps(entry, stream, buffers, context, put_into(parts))[0]
        except PronghornError as error:
            return refused(error)

    def _step(self, entry: Entry, due: float | None, steps: Steps | ThreadSteps) -> Answer | None:
        self._check_open("maybe_executed")
        if due is not None and monotonic() > due:
            steps.close()
            return refused(_late(entry, "maybe_executed")), ()
        word = outside_loop(steps.step)
        return None if word is None else self._ended(entry, _unless_late(due, entry, word))

    async def _step_async(
        self,
        entry: Entry,
        message: RunCall,
        due: float | None,
        steps: AsyncSteps,
        context: Context | None,
    ) -> Answer | None:
        self._check_open("maybe_executed")
        if due is not None and monotonic() > due:
            await steps.close()
            return refused(_late(entry, "maybe_executed")), ()
        word = await self._until_due(entry, message, steps.step(), context, due)
        return None if word is None else self._ended(entry, word)

    def _context(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        on_event: OnEvent | None = None,
        extras: Extras | None = None,
    ) -> Context | None:
        if extras is not None and extras.durability not in (None, "none"):
            details = ErrorDetails(outcome="not_started", node=entry.name)
            raise JournalError(f"{entry.name} can't be recorded: {_NO_JOURNAL}", details)
        if not entry.takes_context:
            return None
        traceparent = None if extras is None else well_formed(extras.traceparent)
        context = self._execution.context(entry, message, traceparent=traceparent)
        if on_event is not None:
            context.channel = LocalChannel(context, on_event)
        return context

    @property
    def _execution(self) -> Execution:
        return self._host.execution


class LocalTransport(_Requests):
    """Runs requests in the calling thread; those of async nodes on the pool's loop."""

    def connect(self) -> None:
        """Refuse a pool that is closed; see `Transport` for this and the others."""
        self._check_open()

    def call(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        depth: int = 0,
        *,
        extras: Extras | None = None,
    ) -> Answer:
        """Run a call."""
        self._check_open()
        if node == STATS:
            return self._host.statistics.reply(), ()
        try:
            entry, message = self._host.message(node, params, timeout_ms, depth)
        except InvalidArgumentError as error:
            return refused(error), ()
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return self._host.loop().run(self._call_async(entry, message, buffers, extras=extras))
        return self._call(entry, message, buffers, extras=extras)

    def submit(
        self,
        target: Target,
        params: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None = None,
        extras: Extras | None = None,
    ) -> "Future[Any]":
        """Run a call on the pool's loop or in one of its threads."""
        self._check_open()
        arguments = (target, params, timeout_ms, on_event, extras)
        if self._host.is_async(target.name):
            return self._host.loop().start(self._run_async(*arguments))
        return self._host.threads().submit(self._run, *arguments)

    def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> LocalArrivals:
        """Run a call step by step, as its parts are taken; or in one go for its events."""
        self._check_open()
        made: Parts = deque()
        try:
            entry, message = self._host.message(node, params, timeout_ms)
        except InvalidArgumentError as error:
            refusal = refused(error)
            return LocalArrivals(lambda: (refusal, ()), _nothing, made, None)
        context = self._context(entry, message, on_event, extras=extras)
        channel = channel_of(context)
        buffers = _as_received(params[1])
        if not parts:
            whole = partial(self._whole, entry, message, buffers, context)
            return LocalArrivals(whole, _nothing, made, channel)
        steps = self._steps(entry, message, buffers, context, made)
        if isinstance(steps, Error):
            end: Answer = (steps, ())
            return LocalArrivals(lambda: end, _nothing, made, None)
        due = _due(message)
        step: Callable[[], Answer | None]
        close: Callable[[], None]
        if isinstance(steps, Steps):
            step, close = partial(self._step, entry, due, steps), steps.close
        else:
            step = partial(self._step_on_loop, entry, message, due, steps, context)
            close = partial(self._close_on_loop, steps)
        return LocalArrivals(step, partial(_cancel, context, close), made, channel)

    def _whole(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
    ) -> Answer:
        if entry.kind == "async":
            return self._host.loop().run(self._call_async(entry, message, buffers, context))
        return self._call(entry, message, buffers, context)

    def _step_on_loop(
        self,
        entry: Entry,
        message: RunCall,
        due: float | None,
        steps: AsyncSteps,
        context: Context | None,
    ) -> Answer | None:
        step = self._step_async(entry, message, due, steps, context)
        return self._host.loop().run(step)

    def _close_on_loop(self, steps: AsyncSteps) -> None:
        with suppress(BrokerLostError):  # the pool is closed, and has ended it
            self._host.loop().run(steps.close())

    def map(
        self, plan: MapPlan, timeout_ms: float | None, extras: Extras | None = None
    ) -> Generator[Results, None, None]:
        """Run the chunks of a plan one after the other."""
        while not plan.finished:
            for chunk in plan.next_chunks():
                self._check_open()
                plan.replied(chunk, self._run_chunk(plan.node, chunk.body, timeout_ms, extras))
                yield from plan.results()
            yield from plan.results()

    def ping(self, timeout_s: float) -> float:
        """Take no time."""
        self._check_open()
        return 0.0

    def close(self) -> None:
        """End the requests of this client."""
        self._end()

    def _run(
        self,
        target: Target,
        params: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None,
        extras: Extras | None,
    ) -> Any:
        if on_event is None:
            reply, buffers = self.call(target.name, params, timeout_ms, extras=extras)
            return result_of(target, reply, buffers)
        arrivals = self.stream(
            target.name, params, timeout_ms, parts=False, on_event=on_event, extras=extras
        )
        return call_telling(target, lambda again: arrivals)

    async def _run_async(
        self,
        target: Target,
        params: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None,
        extras: Extras | None,
    ) -> Any:
        entry, message = self._host.message(target.name, params, timeout_ms)
        context = self._context(entry, message, on_event, extras=extras)
        received = _as_received(params[1])
        reply, buffers = await self._call_async(entry, message, received, context)
        raise_told(channel_of(context))
        return result_of(target, reply, buffers)

    def _run_chunk(
        self, node: str, items: bytes, timeout_ms: float | None, extras: Extras | None
    ) -> object:
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return refused(error)
        if entry.kind == "async":
            return self._host.loop().run(self._chunk_async(entry, message, extras))
        return self._chunk(entry, message, extras)


class LocalAsyncTransport(_Requests):
    """Runs requests on the calling loop; those of threaded nodes in threads."""

    async def connect(self) -> None:
        """Refuse a pool that is closed; see `AsyncTransport` for this and the others."""
        self._check_open()

    async def call(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        depth: int = 0,
        *,
        extras: Extras | None = None,
    ) -> Answer:
        """Run a call."""
        self._check_open()
        if node == STATS:
            return self._host.statistics.reply(), ()
        entry, message = self._host.message(node, params, timeout_ms, depth)
        buffers = _as_received(params[1])
        if entry.kind == "async":
            return await self._call_async(entry, message, buffers, extras=extras)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._call, entry, message, buffers, extras=extras)
        return self._call(entry, message, buffers, extras=extras)

    async def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> LocalAsyncArrivals:
        """Run a call step by step, as its parts are taken; or in one go for its events."""
        self._check_open()
        entry, message = self._host.message(node, params, timeout_ms)
        made: Parts = deque()
        context = self._context(entry, message, on_event, extras=extras)
        channel = channel_of(context)
        buffers = _as_received(params[1])
        if not parts:
            whole = partial(self._whole, entry, message, buffers, context)
            return LocalAsyncArrivals(whole, _nothing, made, channel)
        steps = self._steps(entry, message, buffers, context, made)
        if isinstance(steps, Error):
            return LocalAsyncArrivals(partial(_ended, steps), _nothing, made, None)
        due = _due(message)
        step: Callable[[], Awaitable[Answer | None]]
        close: Callable[[], None]
        if isinstance(steps, AsyncSteps):
            step = partial(self._step_async, entry, message, due, steps, context)
            close = partial(self._close_soon, steps)
        else:
            threaded = ThreadSteps(steps)
            in_thread = entry.kind == "thread"
            step = partial(self._step_here, entry, due, threaded, in_thread=in_thread)
            close = threaded.close
        return LocalAsyncArrivals(step, partial(_cancel, context, close), made, channel)

    async def _whole(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
    ) -> Answer:
        if entry.kind == "async":
            return await self._call_async(entry, message, buffers, context)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._call, entry, message, buffers, context)
        return self._call(entry, message, buffers, context)

    async def _step_here(
        self, entry: Entry, due: float | None, steps: ThreadSteps, *, in_thread: bool
    ) -> Answer | None:
        if in_thread:
            return await asyncio.to_thread(self._step, entry, due, steps)
        return self._step(entry, due, steps)

    def _close_soon(self, steps: AsyncSteps) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(steps.close())
        self._host.tasks[task] = loop
        task.add_done_callback(self._host.tasks.pop)

    async def chunk(
        self, node: str, items: bytes, timeout_ms: float | None, extras: Extras | None = None
    ) -> object:
        """Run a chunk of a map."""
        self._check_open()
        try:
            entry, message = self._host.chunk(node, items, timeout_ms)
        except PronghornError as error:
            return refused(error)
        if entry.kind == "async":
            return await self._chunk_async(entry, message, extras)
        if entry.kind == "thread":
            return await asyncio.to_thread(self._chunk, entry, message, extras)
        return self._chunk(entry, message, extras)

    async def ping(self, timeout_s: float) -> float:
        """Take no time."""
        self._check_open()
        return 0.0

    async def close(self) -> None:
        """End the requests of this client."""
        self._end()


def _nothing() -> None:
    """Close what can't be closed: a call that runs in one go."""


def _cancel(context: Context | None, close: Callable[[], None]) -> None:
    """Close a generator that nobody reads any more."""
    if context is not None:
        context.mark_cancelled()
    close()


async def _ended(reply: Error) -> Answer:
    return reply, ()


def channel_of(context: Context | None) -> LocalChannel | None:
    """Return where the events of a call go."""
    channel = None if context is None else context.channel
    assert channel is None or isinstance(channel, LocalChannel)
    return channel


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
