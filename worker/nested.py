"""Calls that nodes make while they run: sent to the broker, or run right here when it says so.

The broker places a call on a worker that has room. Where waiting for one could be for ever, because
those that wait hold all there is, it tells the caller's worker to run it itself, as a part of the
caller (broker/nested.py has the rules). A plain ``def`` waits on the link in the loop's thread:
what comes meanwhile and is not for it stays in the worker's queue.

Mirror: tests/worker/test_nested.py.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from time import monotonic
from typing import Any, TypeVar

from msgspec import Raw

from pronghorn.broker.wire.errors import (
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    Outcome,
    OverloadedError,
)
from pronghorn.broker.wire.link import (
    CODEC_MSGPACK,
    FRAME_BYTES_MAX,
    Buffer,
    CancelNested,
    Done,
    Failed,
    Nested,
    NestedDone,
    NestedFailed,
    RunCall,
    RunHere,
    ToBroker,
)
from pronghorn.broker.wire.messages import Error, Result
from pronghorn.client.invocation import (
    NodeLike,
    Params,
    Target,
    encode_arguments,
    result_of,
    take_options,
    target_of,
    timeout_ms_of,
)

from .context import Context
from .dispatch import DispatchTable, Entry
from .execution import Execution, Word
from .loops import outside_loop

DEPTH_MAX = 100
"""Calls within calls; more is a recursion without an end."""

FRAMES_PER_CALL_MAX = 40
"""Frames of Python's stack between a node and another that runs within it, with room to spare."""

T = TypeVar("T")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""By position and by name."""

Reply = NestedDone | NestedFailed | RunHere


class _Waiter:
    """A plain ``def`` that waits for a reply in the loop's thread."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: tuple[Reply, Sequence[bytes]] | None = None

    def done(self) -> bool:
        return self.answer is not None

    def set_result(self, answer: tuple[Reply, Sequence[bytes]]) -> None:
        self.answer = answer


class NestedCalls:
    """The calls that the nodes of one worker make. All but `call_sync` is for the loop's thread.

    Args:
        table: The nodes.
        execution: Runs those that the broker leaves to this worker.
        loop: The worker's.
        send: Writes to the link.
        pump: Waits until something has come over the link, and takes it in.
        use_loop: Has the loop shown to what runs on it.
    """

    def __init__(
        self,
        *,
        table: DispatchTable,
        execution: Execution,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[ToBroker, Sequence[Buffer]], None],
        pump: Callable[[], None],
        use_loop: Callable[[], None],
    ) -> None:
        self._table = table
        self._execution = execution
        self._loop = loop
        self._thread = 0  # which runs the loop
        self._send = send
        self._pump = pump
        self._use_loop = use_loop
        self._forked = False  # whether this is a child that a node has forked
        self._ids = 0  # given out last
        # id -> who waits; a key is here iff its reply has not come
        self._open: dict[int, asyncio.Future[Any] | _Waiter] = {}

    def run_here(self) -> None:
        """Note that this thread is going to run the loop."""
        self._thread = threading.get_ident()

    def leave_to_parent(self) -> None:
        """In a forked child: refuse calls, for the link is the parent's."""
        self._forked = True

    def replied(self, reply: Reply, buffers: Sequence[bytes]) -> None:
        """Take in a reply of the broker."""
        waiter = self._open.pop(reply.id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result((reply, buffers))

    async def call(self, context: Context, node: NodeLike, arguments: Arguments) -> Any:
        """Make a call for an ``async def`` and wait for its result."""
        target, params, due = self._prepared(context, node, arguments)
        on_loop = asyncio.get_running_loop() is self._loop
        if on_loop:
            reply, buffers = await self._ask(context, target, params, due)
        elif threading.get_ident() == self._thread:  # a loop of a plain `def`'s own
            reply, buffers = self._wait(context, target, params, due)
        else:  # one in another thread
            asked = self._ask(context, target, params, due)
            reply, buffers = await asyncio.wrap_future(self._start(asked))
        if not isinstance(reply, RunHere):
            return _value(target, reply, buffers)
        entry, message = self._message(context, target, params, due)
        own = self._context(entry, message, context)
        if entry.kind == "async":
            return await self._run_async(target, entry, message, params, own, due)
        if not on_loop:
            return self._run(target, entry, message, params, own, due)
        # In a thread of its own: all of the executor's may be taken by those that wait for it.
        thread = _CallThread(lambda: self._run(target, entry, message, params, own, due))
        return await thread.result()

    def call_sync(self, context: Context, node: NodeLike, arguments: Arguments) -> Any:
        """Make a call for a ``def``, in whatever thread, and wait for its result."""
        refuse_in_loop()
        target, params, due = self._prepared(context, node, arguments)
        in_thread = threading.get_ident() != self._thread
        if in_thread:
            reply, buffers = self._start(self._ask(context, target, params, due)).result()
        else:
            reply, buffers = self._wait(context, target, params, due)
        if not isinstance(reply, RunHere):
            return _value(target, reply, buffers)
        entry, message = self._message(context, target, params, due)
        own = self._context(entry, message, context)
        if entry.kind != "async":
            return self._run(target, entry, message, params, own, due)
        running = self._run_async(target, entry, message, params, own, due)
        if in_thread:  # where what it has made on the loop before is at hand
            return self._start(running).result()
        return outside_loop(asyncio.run, running)

    def _prepared(
        self, context: Context, node: NodeLike, arguments: Arguments
    ) -> tuple[Target, Params, float | None]:
        if self._forked:
            raise RuntimeError("a forked child can't call nodes: the link is its parent's")
        target, params, due = prepared(context, node, arguments)
        check_depth(context, target)
        body, buffers = params
        for size in (len(body), *(memoryview(buffer).nbytes for buffer in buffers)):
            if size > FRAME_BYTES_MAX // 2:
                limit = FRAME_BYTES_MAX // 2
                raise InvalidArgumentError(
                    f"{target.name}: the arguments have {size} bytes, the limit is {limit}",
                    ErrorDetails(limit=limit),
                )
        return target, params, due

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the worker's loop, from another thread."""

        async def on_loop() -> T:
            self._use_loop()
            return await coroutine

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop)

    def _run(
        self,
        target: Target,
        entry: Entry,
        message: RunCall,
        params: Params,
        context: Context | None,
        due: float | None,
    ) -> Any:
        """Run a `def` node right here, in a node that waits for it and does nothing else."""
        run = self._execution.collect if entry.streams else self._execution.call
        word = outside_loop(run, entry, message, _as_received(params), context)
        if due is not None and monotonic() > due:
            raise _late(target, "executed")
        return _value_of_word(target, word)

    async def _run_async(
        self,
        target: Target,
        entry: Entry,
        message: RunCall,
        params: Params,
        context: Context | None,
        due: float | None,
    ) -> Any:
        """Run an `async def` node on the running loop until its deadline, as a task of its own.

        As everywhere, its end is not waited for then, nor when its caller is cancelled.
        """
        run = self._execution.collect_async if entry.streams else self._execution.call_async
        running = run(entry, message, _as_received(params), context)
        task = asyncio.get_running_loop().create_task(running)
        try:
            await asyncio.wait([task], timeout=None if due is None else due - monotonic())
        finally:
            if not task.done():
                if context is not None:
                    context.mark_cancelled()
                task.cancel()
        if not task.done():
            raise _late(target, "maybe_executed")
        return _value_of_word(target, task.result())

    async def _ask(
        self, context: Context, target: Target, params: Params, due: float | None
    ) -> tuple[Reply, Sequence[bytes]]:
        future: asyncio.Future[tuple[Reply, Sequence[bytes]]] = self._loop.create_future()
        request_id = self._open_call(future, context, target, params, due, waits=False)
        try:
            return await future
        finally:
            if self._open.pop(request_id, None) is not None:
                self._send(CancelNested(request_id), ())

    def _wait(
        self, context: Context, target: Target, params: Params, due: float | None
    ) -> tuple[Reply, Sequence[bytes]]:
        waiter = _Waiter()
        request_id = self._open_call(waiter, context, target, params, due, waits=True)
        try:
            while waiter.answer is None:
                self._pump()
            return waiter.answer
        finally:
            if self._open.pop(request_id, None) is not None:  # a signal's handler has raised
                self._send(CancelNested(request_id), ())

    def _open_call(
        self,
        waiter: asyncio.Future[Any] | _Waiter,
        context: Context,
        target: Target,
        params: Params,
        due: float | None,
        *,
        waits: bool,
    ) -> int:
        self._ids += 1
        self._open[self._ids] = waiter
        body, buffers = params
        message = Nested(
            self._ids,
            context.token,
            target.name,
            Raw(body),
            left_ms(due),
            waits,
            context.depth + 1,
            len(buffers),
            context.traceparent,
        )
        self._send(message, buffers)
        return self._ids

    def _message(
        self, context: Context, target: Target, params: Params, due: float | None
    ) -> tuple[Entry, RunCall]:
        entry = self._table.lookup(target.name)
        body, buffers = params
        # Under its caller's token: what it calls in turn ends with that.
        return entry, RunCall(
            context.token,
            0,
            entry.index,
            CODEC_MSGPACK,
            Raw(body),
            left_ms(due),
            len(buffers),
            context.depth + 1,
        )

    def _context(self, entry: Entry, message: RunCall, within: Context) -> Context | None:
        return self._execution.context(entry, message, within) if entry.takes_context else None


class _CallThread:
    """A thread for one call. It keeps nobody from ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._future: Future[Any] = Future()
        run = copy_context().run  # what surrounds the caller
        threading.Thread(
            target=run, args=(self._run,), name="pronghorn-nested", daemon=True
        ).start()

    def result(self) -> "asyncio.Future[Any]":
        """Give what the running loop can await."""
        return asyncio.wrap_future(self._future)

    def _run(self) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            self._future.set_result(self._call())
        except BaseException as error:
            self._future.set_exception(error)


def refuse_in_loop() -> None:
    """Refuse to hold up the loop of an ``async def``."""
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("this would hold up the event loop: use `await ctx.call(...)`")


def check_depth(context: Context, target: Target) -> None:
    """Refuse a recursion without an end."""
    if context.depth >= DEPTH_MAX:
        limit = DEPTH_MAX
        raise OverloadedError(
            f"{target.name}: calls within calls are {limit} deep, the limit",
            ErrorDetails(outcome="not_started", limit=limit),
        )


def prepared(
    context: Context, node: NodeLike, arguments: Arguments
) -> tuple[Target, Params, float | None]:
    """Make of a call what is sent, and tell when its caller gives up."""
    args, kwargs = arguments
    target = target_of(node)
    timeout_s, params = take_options(target, kwargs, None)
    timeout_ms = timeout_ms_of(timeout_s)
    due = context.deadline
    if timeout_ms is not None:
        own = monotonic() + timeout_ms / 1000
        due = own if due is None else min(due, own)
    if due is not None and due <= monotonic():
        raise _late(target, "not_started")
    return target, encode_arguments(target, args, kwargs, params), due


def left_ms(due: float | None) -> float | None:
    """Tell how long a call may take, milliseconds."""
    return None if due is None else max(1e-3, (due - monotonic()) * 1000)


def _value(target: Target, reply: NestedDone | NestedFailed, buffers: Sequence[bytes]) -> Any:
    if isinstance(reply, NestedDone):
        return result_of(target, Result(reply.id, reply.value, reply.buffers), buffers)
    return result_of(target, Error(reply.id, reply.code, reply.message, reply.details), ())


def _value_of_word(target: Target, word: Word) -> Any:
    message, buffers = word
    if isinstance(message, Done):
        reply: Result | Error = Result(0, message.value, message.buffers)
    else:
        assert isinstance(message, Failed), "a call ends with Done or Failed"
        reply = Error(0, message.code, message.message, message.details)
    return result_of(target, reply, [bytes(buffer) for buffer in buffers])


def _as_received(params: Params) -> list[bytes]:
    """Copy buffers, so that caller and node have values of their own, as if they had travelled."""
    return [bytes(buffer) for buffer in params[1]]


def _late(target: Target, outcome: Outcome) -> DeadlineExceededError:
    details = ErrorDetails(outcome=outcome, node=target.name)
    return DeadlineExceededError(f"{target.name}: the deadline has passed", details)
