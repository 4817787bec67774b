"""The worker process: its link, its loop and the threads of its nodes. An IO shell.

A `def` node runs in the loop's thread, right where its request was read: the process is the
isolation, and nothing is created per call. It sees no running loop, so that it may run one of its
own. An `async def` node runs as a task, a ``thread=True`` node in the worker's own executor. Each
result is written to the link as soon as it exists.

Every request gets a last word. What a node raises, or users' types while they are decoded and
encoded, is one; so is what has struck elsewhere in an `Execution`, which keeps no state. An
exception in the code of this module (a handler that a node has installed for a signal can raise
one anywhere) leaves a state that nobody knows, perhaps half a frame on the link: then the worker
ends at once, and its end is reported to all who wait for it.

Mirror: tests/worker/test_runtime.py.
"""

import asyncio
import logging
import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic_ns
from typing import Any, NoReturn, cast

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import BrokerLostError, ErrorDetails, PronghornError
from pronghorn.broker.wire.link import (
    READ_BYTES_MIN,
    AdvanceKept,
    Alive,
    AskAlive,
    Buffer,
    CancelRun,
    History,
    MoreCredit,
    NestedDone,
    NestedFailed,
    Ready,
    Recorded,
    RunCall,
    RunChunk,
    RunContext,
    RunHere,
    Skipped,
    Stop,
    ToBroker,
    ToWorker,
    TraceContext,
    next_read_bytes,
    worker_end,
)
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage, area_bytes
from pronghorn.client.spans import spans_in_use

from .context import Caller, Context
from .core import WorkerCore
from .dispatch import DispatchTable, Entry
from .ending import EXIT_FAILED, leave
from .events import EventChannels
from .execution import CONCURRENT_ITEMS, Execution, Word, failed, struck
from .generators import Generators, Handle, LoopGenerator, Outbox
from .loops import GRACE_S
from .nested import NestedCalls
from .recorded import Attempts
from .shared import SharedFolder, SharedValues
from .spanned import SpannedExecution
from .writing import LinkWriter

_log = logging.getLogger(__name__)

_THREADS = CONCURRENT_ITEMS  # of thread=True nodes, made as needed; no request waits for one
_TURN_NS = 1_000_000  # run time of inline nodes after which waiting coroutines get their turn

_FORGET_S = 5.0  # between looks at whether large values are of use still

# What waits in a worker that waits for a call of its node: it can't begin anything meanwhile.
_TAKES_ITS_TURN = (RunCall, RunChunk, Stop, AskAlive)


class WorkerRuntime:
    """One running worker. Owns its link, its page and its executor.

    Args:
        worker_id: Its number.
        table: The nodes that it serves.
        link: Its end of the link to the broker.
        page_fd: Descriptor of the page of slots that it shares with the broker.
        result_bytes: Largest result.
        loop: The loop to run.
        loop_in_use: Whether something else may be on the loop already.
        shared: Folder of the values that come by reference; "" if none do.
    """

    def __init__(
        self,
        *,
        worker_id: int,
        table: DispatchTable,
        link: socket.socket,
        page_fd: int,
        result_bytes: int,
        loop: asyncio.AbstractEventLoop,
        loop_in_use: bool = False,
        shared: str = "",
    ) -> None:
        link.setblocking(False)
        self._worker_id = worker_id
        self._table = table
        self._entries = table.entries
        self._link = link
        self._memory = mmap.mmap(page_fd, PAGE_BYTES)
        self._area = mmap.mmap(page_fd, area_bytes(result_bytes), offset=PAGE_BYTES)
        os.close(page_fd)
        self._page = SlotsPage(memoryview(self._memory))
        self._core: WorkerCore[Handle] = WorkerCore(self._page)
        spans = spans_in_use()
        self._execution = (
            Execution(worker_id, result_bytes)
            if spans is None
            else SpannedExecution(worker_id, result_bytes, spans)
        )
        self._loop = loop
        self._writing = LinkWriter(
            link, loop, broken=self._end, written=self._end_if_drained, leave=self._leave
        )
        self._send = self._writing.send  # its own method: one call per request, not two
        self._nested = NestedCalls(
            table=table,
            execution=self._execution,
            loop=loop,
            send=self._writing.send_for_node,
            pump=self._pump,
            use_loop=self._use_loop,
        )
        self._execution.caller = self._nested
        self._outbox = Outbox(loop, self._writing.send_all)
        self._channels = EventChannels(
            send_here=self._writing.send_for_node, send_soon=self._outbox.put, pump=self._pump
        )
        self._execution.open_channel = self._channels.open
        self._attempts = Attempts(self._writing.send_for_node, self._writing.put_for_node)
        self._by_token = self._channels.by_token
        self._generators = Generators(
            execution=self._execution,
            loop=loop,
            threads=self._threads,
            send=self._send_part,
            send_soon=self._outbox.put,
            mark=self._page.set_mark,
            drive_soon=self._drive_soon,
        )
        self._forked = False  # whether this is a child that a node has forked
        self._execution.page, self._execution.area = self._page, self._area
        self._values = SharedValues(
            SharedFolder(shared) if shared else None,
            on_first=lambda: loop.call_soon_threadsafe(self._forget_values_later),
        )
        self._execution.values = self._values
        # token -> traceparent of its caller, of requests that were not begun
        self._traceparents: dict[int, str] = {}
        self._runs: dict[int, RunContext] = {}  # token -> what it is an attempt of, of the same
        # Whether asyncio's mark of the running loop is taken away, as inline nodes need it. It is
        # put back when they are over, but only where somebody may look for it: twice 0.2 us.
        self._loop_hidden = False
        self._loop_in_use = loop_in_use
        self._reader = worker_end()
        self._read_bytes = READ_BYTES_MIN
        self._queue: deque[tuple[ToWorker, Sequence[bytes]]] = deque()  # read, not yet begun
        self._queue_is_scheduled = False
        self._executor: ThreadPoolExecutor | None = None
        self._ended = loop.create_future()

    @property
    def caller(self) -> Caller:
        """Makes the calls of nodes."""
        return self._nested

    def run(self) -> None:
        """Serve until the broker says stop or is gone."""
        self._nested.run_here()
        self._channels.run_here()
        self._loop.add_reader(self._link.fileno(), self._read)
        self._send(Ready(self._worker_id, os.getpid(), self._table.digest))
        self._loop.run_until_complete(self._ended)
        self._loop.remove_reader(self._link.fileno())

    def cancel_all(self) -> None:
        """Cancel what runs beside others, and give the ``finally`` blocks `GRACE_S`."""
        futures = [running.cancel() for running in self._core.in_flight]
        tasks = [future for future in futures if isinstance(future, asyncio.Future)]
        if futures:  # a generator that is driven here is closed in the loop's next turn
            self._loop.run_until_complete(asyncio.sleep(0))
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE_S))

    def close(self) -> None:
        """Close everything; threads that still run are left to the end of the process."""
        self._writing.close()
        self._link.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._page.close()
        self._memory.close()
        self._area.close()

    def leave_to_parent(self) -> None:
        """In a child that a node has forked: see to it that nothing of the parent's is touched.

        The child may run on, and exec or end as it likes; should it come back from the node, it is
        ended before it says what is the parent's to say, or turns the loop that both share.
        """
        self._link.close()
        self._nested.leave_to_parent()
        self._core = cast(Any, _Forked())
        self._channels.leave_to_parent()
        self._forked = True

    # --- requests -------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            try:
                data = self._link.recv(self._read_bytes)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end()
                return
            self._read_bytes = next_read_bytes(self._read_bytes, len(data))
            try:
                messages = self._reader.feed(data)
            except DECODE_ERRORS:  # the ends are not of one installation, or memory was overwritten
                _log.exception("worker %d can't read its link and ends", self._worker_id)
                self._end()
                return
            if len(messages) == 1 and not self._queue:  # one call at a time
                self._handle(*messages[0])
                if self._loop_hidden and self._loop_in_use:
                    self._show_loop()
                return
            self._queue.extend(messages)
            if not self._queue_is_scheduled:
                self._work()
        except BaseException:
            self._leave()

    def _work(self) -> None:
        """Take requests from the queue; after `_TURN_NS` others on the loop get a turn."""
        try:
            self._queue_is_scheduled = False
            queue = self._queue
            until_ns = monotonic_ns() + _TURN_NS
            while queue:
                message, buffers = queue.popleft()
                self._handle(message, buffers)
                if queue and self._core.is_busy and monotonic_ns() > until_ns:
                    self._work_soon()
                    break
            if self._loop_hidden and self._loop_in_use:
                self._show_loop()
        except BaseException:
            self._leave()

    def _work_soon(self) -> None:
        self._queue_is_scheduled = True
        self._loop.call_soon(self._work)

    def _threads(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_THREADS, "pronghorn-node")
        return self._executor

    def _pump(self, timeout_s: float | None = None) -> None:
        """Wait for the link on behalf of a node in the loop's thread, and take in what comes.

        Answers go to who waits for them, cancels to what runs beside; all else waits its turn.

        Raises:
            BrokerLostError: The broker is gone, and the worker about to end.
            BaseException: What a handler of the node's for a signal raises while it waits.
        """
        poll = select.poll()
        poll.register(
            self._link, select.POLLIN | (select.POLLOUT if self._writing.pending_bytes else 0)
        )
        # What a handler raises it raises here, mostly: nothing is half done.
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            return
        try:
            if self._writing.pending_bytes:
                self._writing.write_rest()
            try:
                data = self._link.recv(self._read_bytes)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._read_bytes = next_read_bytes(self._read_bytes, len(data))
            for message, buffers in self._reader.feed(data):
                if isinstance(message, _TAKES_ITS_TURN) or self._is_early(message):
                    self._queue.append((message, buffers))
                else:
                    self._handle(message, buffers)
            if self._queue and not self._queue_is_scheduled:
                self._work_soon()
        except BaseException:
            self._leave()
        if not data:
            self._end()
            details = ErrorDetails(outcome="maybe_executed")
            raise BrokerLostError("the broker is gone, and this worker ends", details)

    def _use_loop(self) -> None:
        self._loop_in_use = True
        if self._loop_hidden:
            self._show_loop()

    def _hide_loop(self) -> None:
        asyncio._set_running_loop(None)
        self._loop_hidden = True

    def _show_loop(self) -> None:
        asyncio._set_running_loop(self._loop)
        self._loop_hidden = False

    def _handle(self, message: ToWorker, buffers: Sequence[bytes]) -> None:
        if isinstance(message, (RunCall, RunChunk)):  # a tuple: a union would be made each time
            if not self._core.begin(message.slot, message.token, monotonic_ns()):
                self._traceparents.pop(message.token, None)
                self._runs.pop(message.token, None)
                self._attempts.close(message.token)
                self._send(Skipped(message.token))
                return
            entry = self._entries[message.node]
            if entry.inline:
                context = self._context(entry, message)
                if not self._loop_hidden:
                    self._hide_loop()
                word = self._run(entry, message, buffers, context)
                self._core.finish_inline(message.slot, message.token)
                if self._by_token:
                    self._channels.close(message.token)
                self._send(*word)
            elif entry.streams:
                self._start_generator(entry, message, buffers)
            else:
                self._start(entry, message, buffers)
        elif isinstance(message, (NestedDone, NestedFailed, RunHere)):
            self._nested.replied(message, buffers)
        elif isinstance(message, CancelRun):
            running = self._core.cancelled(message.token)
            if running is not None:
                running.cancel()
        elif isinstance(message, MoreCredit):
            self._take_credit(message)
        elif isinstance(message, TraceContext):
            self._traceparents[message.token] = message.traceparent
        elif isinstance(message, RunContext):
            self._runs[message.token] = message
        elif isinstance(message, Recorded):
            self._attempts.open(message)
        elif isinstance(message, History | AdvanceKept):
            self._attempts.take(message, buffers)
        elif isinstance(message, AskAlive):
            self._send(Alive())
        elif isinstance(message, Stop):
            self._core.stop()
            self._end_if_drained()

    def _context(self, entry: Entry, message: RunCall | RunChunk) -> Context | None:
        """Make the context of a request that is begun, if its node asks for one."""
        traceparent = None
        if self._traceparents:
            traceparent = self._traceparents.pop(message.token, None)
            if traceparent is not None and self._execution.parents is not None:
                self._execution.parents[message.token] = traceparent
        run = self._runs.pop(message.token, None) if self._runs else None
        if not entry.takes_context:
            return None
        context = self._execution.context(entry, message, traceparent=traceparent, run=run)
        if self._attempts:
            context.recording = self._attempts.find(message.token)
        return context

    def _run(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        buffers: Sequence[bytes],
        context: Context | None,
    ) -> Word:
        """Run a `def` node; called in the loop's thread or in one of the executor's."""
        try:
            if not isinstance(message, RunChunk):
                return self._execution.call(entry, message, buffers, context)
            return self._execution.chunk(entry, message, context)
        except BaseException as error:
            return struck(entry, message.token, error), ()

    def _start(self, entry: Entry, message: RunCall | RunChunk, buffers: Sequence[bytes]) -> None:
        """Start a node that runs beside others."""
        context = self._context(entry, message)
        future: asyncio.Future[Word]
        if entry.kind == "thread":
            if context is not None:  # whose calls of other nodes are made on the loop
                self._loop_in_use = True
            in_thread = self._threads().submit(self._run, entry, message, buffers, context)
            future = asyncio.wrap_future(in_thread, loop=self._loop)
            self._core.running(message.token, _Running(in_thread, context))
            future.add_done_callback(partial(self._on_ended, message))
            return
        self._loop_in_use = True
        if isinstance(message, RunCall):
            future = self._loop.create_task(
                self._execution.call_async(entry, message, buffers, context)
            )
        else:
            future = self._loop.create_task(self._execution.chunk_async(entry, message, context))
        self._core.running(message.token, _Running(future, context))
        future.add_done_callback(partial(self._on_ended, message))

    def _start_generator(
        self, entry: Entry, message: RunCall | RunChunk, buffers: Sequence[bytes]
    ) -> None:
        """Start a node that yields parts."""
        assert isinstance(message, RunCall), "chunks of generators are refused by the broker"
        context = self._context(entry, message)
        try:
            generator, future = self._generators.make(
                entry, message, buffers, context, partial(self._on_last_word, message)
            )
        except PronghornError as error:
            self._core.finish_inline(message.slot, message.token)
            self._channels.close(message.token)
            self._send(failed(message.token, error))
            return
        self._core.running(message.token, generator)
        if isinstance(generator, LoopGenerator):
            self._drive(generator)
        else:
            assert future is not None
            self._loop_in_use = True
            future.add_done_callback(partial(self._on_ended, message))

    def _send_part(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        if self._forked:  # it has come back from the node, as in `_Forked`
            os._exit(0)
        self._send(message, buffers)

    def _drive_soon(self, generator: LoopGenerator) -> None:
        self._loop.call_soon(self._drive_and_show, generator)

    def _drive_and_show(self, generator: LoopGenerator) -> None:
        try:
            self._drive(generator)
            if self._loop_hidden and self._loop_in_use:
                self._show_loop()
        except BaseException:
            self._leave()

    def _drive(self, generator: LoopGenerator) -> None:
        self._hide_loop()
        generator.drive()

    def _is_early(self, message: ToWorker) -> bool:
        """Whether it is credit of a request that is in the queue, or has ended."""
        return (
            isinstance(message, MoreCredit)
            and message.token not in self._by_token
            and self._core.cancelled(message.token) is None
        )

    def _take_credit(self, message: MoreCredit) -> None:
        self._channels.more(message.token, message.events)
        running = self._core.cancelled(message.token)
        if running is not None:
            running.more(message.items, message.bytes)

    def _on_last_word(self, message: RunCall, word: Word) -> None:
        self._core.finish(message.slot, message.token)
        self._channels.close(message.token)
        self._send(*word)
        self._end_if_drained()

    def _on_ended(self, message: RunCall | RunChunk, future: "asyncio.Future[Word]") -> None:
        try:
            self._core.finish(message.slot, message.token)
            if self._by_token:
                self._channels.close(message.token)
            if self._attempts:
                self._attempts.close(message.token)
            if future.cancelled():  # before its first step, so the node never began
                self._send(Skipped(message.token))
            elif (error := future.exception()) is not None:
                self._send(struck(self._entries[message.node], message.token, error))
            else:
                self._send(*future.result())
            self._end_if_drained()
        except BaseException:
            self._leave()

    # --- the end --------------------------------------------------------------------------------

    def _forget_values_later(self) -> None:
        """Look now and then whether the runs have ended whose large values are kept here."""
        self._loop.call_later(_FORGET_S, self._forget_values)

    def _forget_values(self) -> None:
        if self._values.forget_gone():
            self._forget_values_later()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _end_if_drained(self) -> None:
        if self._core.drained and not self._writing.pending_bytes:
            self._end()

    def _leave(self) -> NoReturn:
        """End this process for the exception that is being handled."""
        leave(EXIT_FAILED, why=f"worker {self._worker_id} ends: an exception outside of any node")


class _Running:
    """A request that runs beside others, by what it can be cancelled."""

    __slots__ = ("_context", "_future")

    def __init__(
        self, future: "asyncio.Future[Word] | Future[Word]", context: Context | None
    ) -> None:
        self._future = future  # of a thread its own, which can't be cancelled once it runs
        self._context = context

    def cancel(self) -> "asyncio.Future[Word] | Future[Word]":
        if self._context is not None:
            self._context.mark_cancelled()
        self._future.cancel()
        return self._future

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit, which is for parts."""


class _Forked:
    """Stands for the core in a forked child."""

    def __getattr__(self, name: str) -> NoReturn:
        os._exit(0)
