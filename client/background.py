"""The sync client's I/O thread: futures for callers that do not wait. An IO shell.

The one thread that library code starts. It runs an event loop with one connection; callers hand
requests over in a queue and wake it once per burst.

Mirror: tests/client/test_background.py.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import zmq

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    PronghornError,
)
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .connection import LATE_S, late
from .core import Completion
from .invocation import Target, result_of

_JOIN_S = 5.0


class _Submitted:
    """A submitted call on its way."""

    __slots__ = ("encoded", "future", "request_id", "target", "timeout_ms", "timer")

    def __init__(
        self,
        future: "Future[Any]",
        target: Target,
        encoded: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
    ) -> None:
        self.future = future
        self.target = target
        self.encoded = encoded
        self.timeout_ms = timeout_ms
        self.request_id = 0  # 0 until it was opened on the connection
        self.timer: asyncio.TimerHandle | None = None


class Background:
    """The thread and its connection. Starts at once; `close` ends it."""

    def __init__(self, endpoint: str, *, connect_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._context = zmq.Context()
        self._inbox: deque[_Submitted] = deque()  # handed over, not yet taken in by the thread
        self._woken = False  # whether the thread was told of the inbox and has not come yet
        self._loop = _new_loop()
        self._connection: AsyncConnection[_Submitted] | None = None
        self._connecting: asyncio.Task[None] | None = None  # waits for a welcome, if one does
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pronghorn-client", daemon=True)
        self._thread.start()

    def submit(
        self, target: Target, encoded: tuple[bytes, Sequence[Buffer]], timeout_ms: float | None
    ) -> "Future[Any]":
        """Open a call; its future is real: it can be waited for, and cancelling it sends cancel."""
        future: Future[Any] = Future()
        submitted = _Submitted(future, target, encoded, timeout_ms)
        future.add_done_callback(lambda one: self._on_done(submitted, one))
        self._inbox.append(submitted)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._take_in)
        return future

    def close(self) -> None:
        """End the thread; calls that are open end with `BrokerLostError`."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_JOIN_S)
        self._context.term()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._connection = connection = AsyncConnection(
            self._context,
            self._endpoint,
            client=CLIENT_NAME,
            connect_timeout_s=self._connect_timeout_s,
            deliver=self._deliver,
        )
        try:
            self._take_in()
            await self._stop.wait()
        finally:
            if self._connecting is not None:
                self._connecting.cancel()
            connection.close()
            self._refuse_all(BrokerLostError("the client was closed"))

    def _take_in(self) -> None:
        """Open what callers have handed over. Runs on the loop."""
        self._woken = False
        connection = self._connection
        if connection is None:
            return  # `_serve` takes it in once there is one
        if connection.core.info is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect(connection))
        inbox = self._inbox
        while inbox:
            submitted = inbox.popleft()
            if submitted.future.cancelled():
                continue
            try:
                submitted.request_id = connection.call(
                    submitted, submitted.target.name, submitted.encoded, submitted.timeout_ms
                )
            except PronghornError as error:
                _fail(submitted, error)
                continue
            if submitted.timeout_ms is not None:
                submitted.timer = self._loop.call_later(
                    submitted.timeout_ms / 1000 + LATE_S, self._on_late, submitted
                )

    async def _connect(self, connection: AsyncConnection[_Submitted]) -> None:
        """Wait for the broker's welcome, which lets what waits go; give it up if none comes."""
        try:
            await connection.ready()
        except BrokerLostError as error:
            connection.give_up(error.message)
        finally:
            self._connecting = None

    def _deliver(self, completion: Completion[_Submitted]) -> None:
        submitted = completion.handle
        if submitted.timer is not None:
            submitted.timer.cancel()
        submitted.request_id = 0
        if not submitted.future.set_running_or_notify_cancel():
            return
        try:
            result = result_of(submitted.target, completion.reply, completion.buffers)
        except PronghornError as error:
            submitted.future.set_exception(error)
        else:
            submitted.future.set_result(result)

    def _on_late(self, submitted: _Submitted) -> None:
        if submitted.timeout_ms is not None and not submitted.future.done():
            self._cancel(submitted)
            _fail(submitted, late(submitted.timeout_ms))

    def _on_done(self, submitted: _Submitted, future: "Future[Any]") -> None:
        if future.cancelled() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel, submitted)

    def _cancel(self, submitted: _Submitted) -> None:
        if submitted.request_id and self._connection is not None:
            self._connection.cancel(submitted.request_id)

    def _refuse_all(self, error: PronghornError) -> None:
        while self._inbox:
            _fail(self._inbox.popleft(), error)


def _fail(submitted: _Submitted, error: PronghornError) -> None:
    if submitted.future.set_running_or_notify_cancel():
        submitted.future.set_exception(error)


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's loop where it is installed (not on Windows), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
