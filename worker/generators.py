"""Drives the generators of one worker: in its loop, in a thread, as a task.

A part leaves as soon as it is yielded. While its caller gives no credit a generator stays suspended
at its ``yield``, and so it does after a turn of `TURN_NS` in the loop's thread. When its call has
been given up it is closed: `GeneratorExit` is raised at the ``yield``, so that its ``finally``
blocks run. Each has one last word.

Mirror: tests/worker/test_generators.py.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from time import monotonic_ns
from typing import Any, Protocol

from pronghorn.broker.wire.link import Buffer, RunCall, ToBroker

from .context import IN_TASK, Context
from .dispatch import Entry
from .execution import Execution
from .failures import cancelled
from .loops import is_cancel
from .streaming import TURN_NS, AsyncSteps, PartWriter, Send, Steps, StreamWord

Outgoing = tuple[ToBroker, Sequence[Buffer]]


class Handle(Protocol):
    """A request that runs beside others: how it is cancelled, and given more credit."""

    def cancel(self) -> object:
        """Cancel it; what is returned may be a future of the loop's that tells of its end."""

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit for its parts."""


class LoopGenerator:
    """A plain generator, driven in the loop's thread.

    Args:
        steps: It.
        writer: Its parts.
        node: Its full name.
        context: Its context, if it takes one.
        mark: Notes on the page whether it runs.
        soon: Has `drive` called by the loop.
        end: Takes its last word.
    """

    def __init__(
        self,
        steps: Steps,
        writer: PartWriter,
        node: str,
        context: Context | None,
        *,
        mark: Callable[[int], None],
        soon: Callable[["LoopGenerator"], None],
        end: Callable[[StreamWord], None],
    ) -> None:
        self._steps = steps
        self._writer = writer
        self._node = node
        self._context = context
        self._mark = mark
        self._soon = soon
        self._end = end
        self._is_scheduled = False
        self._runs = False  # whether it is in a step, which may take in messages meanwhile
        self._cancelled = False
        self._ended = False

    def drive(self) -> None:
        """Run it until its turn, its credit or itself is over. Guarded by ``bench streams``."""
        self._is_scheduled = False
        if self._runs or self._ended:
            return
        self._runs = True
        self._mark(1)
        word = self._turn()
        self._mark(0)
        self._runs = False
        if word is not None:
            self._ended = True
            self._end(word)

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit."""
        self._writer.more(items, bytes_)
        self._schedule()

    def cancel(self) -> None:
        """Close it where it is suspended, or as soon as it is."""
        self._cancelled = True
        if self._context is not None:
            self._context.mark_cancelled()
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._soon(self)

    def _turn(self) -> StreamWord | None:
        step, writer = self._steps.step, self._writer
        until_ns = monotonic_ns() + TURN_NS
        while not self._cancelled:
            if not writer.ready:
                return None
            word = step()
            if word is not None:
                return word
            if monotonic_ns() > until_ns:
                self._schedule()
                return None
        self._steps.close()
        return writer.failed(cancelled(self._node))


class ThreadGenerator:
    """A generator in a thread of its own; arguments as of `LoopGenerator`."""

    def __init__(
        self, steps: Steps, writer: PartWriter, node: str, context: Context | None
    ) -> None:
        self._steps = steps
        self._writer = writer
        self._node = node
        self._context = context
        self._changed = threading.Condition()  # guards the writer's credit and what follows
        self._cancelled = False
        self._future: asyncio.Future[Any] | None = None  # of the loop's

    def run(self) -> StreamWord:
        """Run it to its end, in its thread."""
        while self._wait_for_credit():
            word = self._steps.step()
            if word is not None:
                return word
        self._steps.close()
        return self._writer.failed(cancelled(self._node))

    def running(self, future: "asyncio.Future[Any]") -> None:
        """Note what tells of its end."""
        self._future = future

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit."""
        with self._changed:
            self._writer.more(items, bytes_)
            self._changed.notify()

    def cancel(self) -> object:
        """Close it once it is suspended; or never begin."""
        if self._context is not None:
            self._context.mark_cancelled()
        with self._changed:
            self._cancelled = True
            self._changed.notify()
        return self._future

    def _wait_for_credit(self) -> bool:
        """Wait until the next part may be made; `False` if none may any more."""
        with self._changed:
            while not (self._writer.ready or self._cancelled):
                self._changed.wait()
            return not self._cancelled


class TaskGenerator:
    """An async generator, driven by a task; arguments as of `LoopGenerator`."""

    def __init__(
        self, steps: AsyncSteps, writer: PartWriter, node: str, context: Context | None
    ) -> None:
        self._steps = steps
        self._writer = writer
        self._node = node
        self._context = context
        self._more = asyncio.Event()  # set when more credit has come
        self._cancelled = False
        self._future: asyncio.Future[Any] | None = None  # its task

    async def run(self) -> StreamWord:
        """Run it to its end, in its task."""
        IN_TASK.set((self._node, self._writer.token, self._context))
        try:
            return await self._run()
        except asyncio.CancelledError as error:
            if not is_cancel(error):
                raise
            await self._steps.close()
            return self._writer.failed(cancelled(self._node))

    def running(self, future: "asyncio.Future[Any]") -> None:
        """Note its task."""
        self._future = future

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit."""
        self._writer.more(items, bytes_)
        self._more.set()

    def cancel(self) -> object:
        """Cancel its task: `asyncio.CancelledError` in it, or `GeneratorExit` at its ``yield``."""
        if self._context is not None:
            self._context.mark_cancelled()
        self._cancelled = True
        if self._future is not None:
            self._future.cancel()
        return self._future

    async def _run(self) -> StreamWord:
        until_ns = monotonic_ns() + TURN_NS
        while not self._cancelled:  # a node may pay no heed to it, and yield on
            while not self._writer.ready:
                self._more.clear()
                await self._more.wait()
                until_ns = monotonic_ns() + TURN_NS
            word = await self._steps.step()
            if word is not None:
                return word
            if monotonic_ns() > until_ns:
                await asyncio.sleep(0)
                until_ns = monotonic_ns() + TURN_NS
        raise asyncio.CancelledError


class Generators:
    """Makes the generators of one worker ready to run.

    Args:
        execution: Decodes params.
        loop: The worker's.
        threads: Gives its executor.
        send: Writes a part, in the loop's thread.
        send_soon: Has a part written, in any other.
        mark: Notes in a slot of the page whether a generator runs.
        drive_soon: Has `LoopGenerator.drive` called by the loop.
    """

    def __init__(
        self,
        *,
        execution: Execution,
        loop: asyncio.AbstractEventLoop,
        threads: Callable[[], Executor],
        send: Send,
        send_soon: Send,
        mark: Callable[[int, int], None],
        drive_soon: Callable[[LoopGenerator], None],
    ) -> None:
        self._execution = execution
        self._loop = loop
        self._threads = threads
        self._send = send
        self._send_soon = send_soon
        self._mark = mark
        self._drive_soon = drive_soon

    def make(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
        end: Callable[[StreamWord], None],
    ) -> tuple[Handle, "asyncio.Future[Any] | None"]:
        """Make one.

        Args:
            entry: Its node.
            message: The request.
            buffers: Of its params.
            context: If the node takes one.
            end: Takes the last word of one that is driven in the loop.

        Returns:
            It, and what gives its last word unless it is driven in the loop: then it is to be
            driven at once.

        Raises:
            InvalidArgumentError: The params are refused.
        """
        send = self._send_soon if entry.kind == "thread" else self._send
        steps, writer = self._execution.steps(entry, message, buffers, context, send)
        if isinstance(steps, AsyncSteps):
            task = TaskGenerator(steps, writer, entry.name, context)
            running: asyncio.Future[Any] = self._loop.create_task(task.run())
            task.running(running)
            return task, running
        if entry.kind == "thread":
            thread = ThreadGenerator(steps, writer, entry.name, context)
            running = asyncio.wrap_future(self._threads().submit(thread.run), loop=self._loop)
            thread.running(running)
            return thread, running
        mark = partial(self._mark, message.slot)
        loop_generator = LoopGenerator(
            steps, writer, entry.name, context, mark=mark, soon=self._drive_soon, end=end
        )
        return loop_generator, None


class Outbox:
    """Brings messages of other threads to the loop; those of one turn of it leave together.

    Args:
        loop: The loop.
        send: Writes messages with their buffers, on the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[list[Outgoing]], None]
    ) -> None:
        self._loop = loop
        self._send = send
        # Whoever puts something in here, then looks whether the loop was told; which takes that
        # back, then takes out what is here. So nothing is left.
        self._waiting: deque[Outgoing] = deque()
        self._is_told = False

    def put(self, message: ToBroker, buffers: Sequence[Buffer] = ()) -> None:
        """Have a message sent, in whatever thread; the buffers may be written to behind it."""
        copies = [bytes(buffer) for buffer in buffers] if buffers else ()
        self._waiting.append((message, copies))
        if not self._is_told:
            self._is_told = True
            self._loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Send what there is, on the loop."""
        self._is_told = False
        outgoing: list[Outgoing] = []
        while self._waiting:
            outgoing.append(self._waiting.popleft())
        self._send(outgoing)
