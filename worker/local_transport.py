"""The transport of an in-process pool's clients for threads.

Mirror: tests/worker/test_local.py.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError, PronghornError
from pronghorn.broker.wire.link import RunCall
from pronghorn.broker.wire.messages import Error
from pronghorn.broker.wire.statistics import STATS
from pronghorn.client.inbox import OnEvent
from pronghorn.client.invocation import Params, Target, refused, result_of
from pronghorn.client.mapping import MapPlan
from pronghorn.client.results import Results
from pronghorn.client.stopwatch import Extras
from pronghorn.client.streaming import call_telling
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
from .local_streams import LocalArrivals, Parts, raise_told
from .streaming import AsyncSteps, Steps


class LocalTransport(LocalRequests):
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
        buffers = as_received(params[1])
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
            return LocalArrivals(lambda: (refusal, ()), nothing, made, None)
        context = self._context(entry, message, on_event, extras=extras)
        channel = channel_of(context)
        buffers = as_received(params[1])
        if not parts:
            whole = partial(self._whole, entry, message, buffers, context)
            return LocalArrivals(whole, nothing, made, channel)
        steps = self._steps(entry, message, buffers, context, made)
        if isinstance(steps, Error):
            end: Answer = (steps, ())
            return LocalArrivals(lambda: end, nothing, made, None)
        due = due_of(message)
        step: Callable[[], Answer | None]
        close: Callable[[], None]
        if isinstance(steps, Steps):
            step, close = partial(self._step, entry, due, steps), steps.close
        else:
            step = partial(self._step_on_loop, entry, message, due, steps, context)
            close = partial(self._close_on_loop, steps)
        return LocalArrivals(step, partial(cancel_and_close, context, close), made, channel)

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
        received = as_received(params[1])
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
