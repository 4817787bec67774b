"""Requests of an in-process pool's clients: how they are run, and ended at their deadlines.

The transports that make them, `local_transport` and `local_aio`, have this in common.

Mirror: tests/worker/test_local.py.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, TypeVar

from pronghorn.broker.wire.errors import (
    DeadlineExceededError,
    ErrorDetails,
    JournalError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.link import ChunkDone, Done, Failed, RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Result
from pronghorn.broker.wire.traceparent import well_formed
from pronghorn.client.connection import closed_error
from pronghorn.client.inbox import OnEvent
from pronghorn.client.invocation import refused
from pronghorn.client.stopwatch import Extras
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import Entry
from .execution import Execution, Word, failed
from .local_host import LocalHost, NodeTask
from .local_streams import LocalChannel, Parts, ThreadSteps, as_stream, no_generator, put_into
from .loops import outside_loop
from .streaming import AsyncSteps, Steps

AnyWord = TypeVar("AnyWord")

_NO_JOURNAL = "an in-process pool has no journal: use a Pool with data=..."


class LocalRequests:
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
        due = due_of(message)
        context = context or self._context(entry, message, extras=extras)
        run = self._execution.collect if entry.streams else self._execution.call
        word = outside_loop(run, entry, message, buffers, context)
        return self._ended(entry, _unless_late(due, entry, word), extras)

    def _chunk(self, entry: Entry, message: RunChunk, extras: Extras | None) -> object:
        due = due_of(message)
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
        if extras is not None and (extras.starts or extras.durability not in (None, "none")):
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


def nothing() -> None:
    """Close what can't be closed: a call that runs in one go."""


def cancel_and_close(context: Context | None, close: Callable[[], None]) -> None:
    """Close a generator that nobody reads any more."""
    if context is not None:
        context.mark_cancelled()
    close()


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
    return reply, as_received(buffers)


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


def due_of(message: RunCall | RunChunk) -> float | None:
    """Tell when the time of a request is over, monotonic seconds; `None` if it has no limit."""
    return None if message.left_ms is None else monotonic() + message.left_ms / 1000


def as_received(buffers: Sequence[Any]) -> list[bytes]:
    """Copy buffers, so that both sides have values of their own, as if they had travelled."""
    return [bytes(buffer) for buffer in buffers]
