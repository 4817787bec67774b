"""The transport of an in-process pool's clients for asyncio.

Mirror: tests/worker/test_local.py.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.broker.wire.link import RunCall
from pronghorn.broker.wire.messages import Error
from pronghorn.broker.wire.statistics import STATS
from pronghorn.client.inbox import OnEvent
from pronghorn.client.invocation import Params, refused
from pronghorn.client.stopwatch import Extras
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import Entry
from .local_requests import (
    LocalRequests,
    as_received,
    cancel_and_close,
    channel_of,
    due_of,
    nothing,
)
from .local_streams import LocalAsyncArrivals, Parts, ThreadSteps
from .streaming import AsyncSteps


class LocalAsyncTransport(LocalRequests):
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
        buffers = as_received(params[1])
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
        buffers = as_received(params[1])
        if not parts:
            whole = partial(self._whole, entry, message, buffers, context)
            return LocalAsyncArrivals(whole, nothing, made, channel)
        steps = self._steps(entry, message, buffers, context, made)
        if isinstance(steps, Error):
            return LocalAsyncArrivals(partial(_ended, steps), nothing, made, None)
        due = due_of(message)
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
        return LocalAsyncArrivals(step, partial(cancel_and_close, context, close), made, channel)

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


async def _ended(reply: Error) -> Answer:
    return reply, ()
