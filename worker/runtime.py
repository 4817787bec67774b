"""The worker process: its link, its loop and the threads of its nodes. An IO shell.

A `def` node runs on the loop itself, right where its request was read: the process is the
isolation, and nothing is created per call. An `async def` node runs as a task, a ``thread=True``
node in the worker's own executor. Each result is written to the link as soon as it exists.

Mirror: tests/worker/test_runtime.py.
"""

import asyncio
import logging
import mmap
import os
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic_ns
from typing import Any, NoReturn, cast

import uvloop

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.link import (
    LENGTH,
    READ_BYTES_MIN,
    Buffer,
    CancelRun,
    Ready,
    RunCall,
    RunChunk,
    Skipped,
    Stop,
    ToBroker,
    ToWorker,
    encode_link,
    next_read_bytes,
    worker_end,
)
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage

from .context import Context
from .core import WorkerCore
from .dispatch import DispatchTable, Entry
from .execution import CONCURRENT_ITEMS, Execution, Word

_log = logging.getLogger(__name__)

_THREADS = CONCURRENT_ITEMS  # of thread=True nodes, made as needed; no request waits for one
_TURN_NS = 1_000_000  # run time of inline nodes after which waiting coroutines get their turn


class WorkerRuntime:
    """One running worker. Owns its link, its page and its executor."""

    def __init__(
        self,
        *,
        worker_id: int,
        table: DispatchTable,
        link: socket.socket,
        page_fd: int,
        result_bytes: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        link.setblocking(False)
        self._worker_id = worker_id
        self._table = table
        self._entries = table.entries
        self._link = link
        self._memory = mmap.mmap(page_fd, PAGE_BYTES)
        os.close(page_fd)
        self._page = SlotsPage(memoryview(self._memory))
        self._core: WorkerCore[_Running] = WorkerCore(self._page)
        self._execution = Execution(worker_id, result_bytes)
        self._loop = loop
        self._reader = worker_end()
        self._read_bytes = READ_BYTES_MIN
        self._queue: deque[tuple[ToWorker, Sequence[bytes]]] = deque()  # read, not yet begun
        self._queue_is_scheduled = False
        self._unsent: deque[Buffer] = deque()  # what the full link did not take yet
        self._executor: ThreadPoolExecutor | None = None
        self._ended = loop.create_future()

    def run(self) -> None:
        """Serve until the broker says stop or is gone."""
        self._loop.add_reader(self._link.fileno(), self._read)
        self._send(Ready(self._worker_id, os.getpid(), self._table.digest))
        self._loop.run_until_complete(self._ended)
        self._loop.run_until_complete(self._cancel_all())

    def close(self) -> None:
        """Close everything; threads that still run are left to the end of the process."""
        self._loop.remove_reader(self._link.fileno())
        self._loop.remove_writer(self._link.fileno())
        self._link.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._page.close()
        self._memory.close()

    def leave_to_parent(self) -> None:
        """In a child that a node has forked: see to it that nothing of the parent's is touched.

        The child may run on, and exec or end as it likes; should it come back from the node, it is
        ended before it says what is the parent's to say, or turns the loop that both share.
        """
        self._link.close()
        self._core = cast(Any, _Forked())

    # --- requests -------------------------------------------------------------------------------

    def _read(self) -> None:
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
            return
        self._queue.extend(messages)
        if not self._queue_is_scheduled:
            self._work()

    def _work(self) -> None:
        """Take requests from the queue; after `_TURN_NS` others on the loop get a turn."""
        self._queue_is_scheduled = False
        queue = self._queue
        until_ns = monotonic_ns() + _TURN_NS
        while queue:
            message, buffers = queue.popleft()
            self._handle(message, buffers)
            if queue and self._core.is_busy and monotonic_ns() > until_ns:
                self._queue_is_scheduled = True
                self._loop.call_soon(self._work)
                return

    def _handle(self, message: ToWorker, buffers: Sequence[bytes]) -> None:
        if isinstance(message, (RunCall, RunChunk)):  # a tuple: a union would be made each time
            if not self._core.begin(message.slot, message.token, monotonic_ns()):
                self._send(Skipped(message.token))
                return
            entry = self._entries[message.node]
            if entry.kind == "inline":
                context = self._execution.context(entry, message) if entry.takes_context else None
                word = self._run(entry, message, buffers, context)
                self._core.finish_inline(message.slot, message.token)
                self._send(*word)
            else:
                self._start(entry, message, buffers)
        elif isinstance(message, CancelRun):
            running = self._core.cancelled(message.token)
            if running is not None:
                running.cancel()
        elif isinstance(message, Stop):
            self._core.stop()
            self._end_if_drained()

    def _run(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        buffers: Sequence[bytes],
        context: Context | None,
    ) -> Word:
        if type(message) is RunCall:
            return self._execution.call(entry, message, buffers, context)
        assert isinstance(message, RunChunk)
        marked = partial(self._core.marked, message.slot)
        return self._execution.chunk(entry, message, marked, context)

    def _start(self, entry: Entry, message: RunCall | RunChunk, buffers: Sequence[bytes]) -> None:
        """Start a node that runs beside others."""
        context = self._execution.context(entry, message) if entry.takes_context else None
        future: asyncio.Future[Word]
        if entry.kind == "thread":
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, "pronghorn-node")
            in_thread = self._executor.submit(self._run, entry, message, buffers, context)
            future = asyncio.wrap_future(in_thread, loop=self._loop)
            self._core.running(message.token, _Running(in_thread, context))
            future.add_done_callback(partial(self._on_ended, message))
            return
        if isinstance(message, RunCall):
            future = self._loop.create_task(
                self._execution.call_async(entry, message, buffers, context)
            )
        else:
            future = self._loop.create_task(self._execution.chunk_async(entry, message, context))
        self._core.running(message.token, _Running(future, context))
        future.add_done_callback(partial(self._on_ended, message))

    def _on_ended(self, message: RunCall | RunChunk, future: "asyncio.Future[Word]") -> None:
        if future.cancelled():  # before its first step, so the node never began
            self._core.finish(message.slot, message.token)
            self._send(Skipped(message.token))
        else:
            self._core.finish(message.slot, message.token)
            self._send(*future.result())
        self._end_if_drained()

    # --- the link -------------------------------------------------------------------------------

    def _send(self, message: ToBroker, buffers: Sequence[Buffer] = ()) -> None:
        """Write a message at once; what a full link does not take waits until it does."""
        body = encode_link(message)
        data: Buffer = LENGTH.pack(len(body)) + body
        if self._unsent or buffers:
            self._unsent.append(data)
            for buffer in buffers:
                view = memoryview(buffer).cast("B")
                self._unsent.append(LENGTH.pack(view.nbytes))
                self._unsent.append(view)
            self._write_unsent()
            return
        try:
            sent = self._link.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._loop.add_writer(self._link.fileno(), self._write_unsent)

    def _write_unsent(self) -> None:
        unsent = self._unsent
        while unsent:
            try:
                sent = self._link.send(unsent[0])
            except BlockingIOError:
                # What waits must not change with the memory of the node that returned it.
                for index, rest in enumerate(unsent):
                    if isinstance(rest, memoryview):
                        unsent[index] = bytes(rest)
                self._loop.add_writer(self._link.fileno(), self._write_unsent)
                return
            except OSError:
                self._end()
                return
            first = unsent.popleft()
            if sent < len(first):
                unsent.appendleft(memoryview(first)[sent:])
        self._loop.remove_writer(self._link.fileno())

    # --- the end --------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _end_if_drained(self) -> None:
        if self._core.drained:
            self._end()

    async def _cancel_all(self) -> None:
        """Cancel the coroutines that still run and let their ``finally`` blocks run."""
        for running in self._core.in_flight:
            running.cancel()
        me = asyncio.current_task()
        await asyncio.gather(
            *(task for task in asyncio.all_tasks() if task is not me), return_exceptions=True
        )


class _Running:
    """A request that runs beside others, by what it can be cancelled."""

    __slots__ = ("_context", "_future")

    def __init__(
        self, future: "asyncio.Future[Word] | Future[Word]", context: Context | None
    ) -> None:
        self._future = future  # of a thread its own, which can't be cancelled once it runs
        self._context = context

    def cancel(self) -> None:
        if self._context is not None:
            self._context.mark_cancelled()
        self._future.cancel()


class _Forked:
    """Stands for the core in a forked child."""

    def __getattr__(self, name: str) -> NoReturn:
        os._exit(0)


def run_worker(
    *, worker_id: int, table: DispatchTable, link_fd: int, page_fd: int, result_bytes: int
) -> None:
    """Be a worker until the broker says stop or is gone."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    runtime = WorkerRuntime(
        worker_id=worker_id,
        table=table,
        link=socket.socket(fileno=link_fd),
        page_fd=page_fd,
        result_bytes=result_bytes,
        loop=loop,
    )
    os.register_at_fork(after_in_child=runtime.leave_to_parent)
    try:
        runtime.run()
    finally:
        runtime.close()
        loop.close()
