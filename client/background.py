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
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from pronghorn.broker.wire.errors import BrokerLostError, PronghornError
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .completions import Completion
from .connection import LATE_S, closed_error, late
from .inbox import Inbox, OnEvent, told
from .invocation import REPEATS_MAX, Target, is_worth_repeating, left_of, result_of
from .sockets import Sockets
from .stopwatch import Extras

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

_JOIN_S = 5.0


class _Submitted(Future[Any]):
    """The future of a submitted call; cancelling it cancels the call."""

    def __init__(
        self,
        background: "Background",
        target: Target,
        encoded: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
        on_event: OnEvent | None,
        extras: Extras | None,
    ) -> None:
        super().__init__()
        self.background = background
        self.target = target
        self.encoded = encoded
        self.timeout_ms = timeout_ms
        self.begun = 0.0 if timeout_ms is None else monotonic()
        self.request_id = 0  # 0 until it was opened on the connection
        self.repeats = 0  # how often it was made again
        self.has_ended = False  # whether those who wait for it were told of its end
        self.timer: asyncio.TimerHandle | None = None
        self.on_event = on_event
        self.extras = extras
        self.inbox: Inbox | None = None  # of its events, if they are told

    def cancel(self) -> bool:
        """Cancel it unless it has ended; the node may run on, but nobody hears of it."""
        cancelled = super().cancel()
        if cancelled:
            self.background.cancel(self)
        return cancelled


class Background:
    """The thread and its connection. Starts at once; `close` ends it."""

    def __init__(
        self, endpoint: str, *, connect_timeout_s: float, key: "PrivateKey | None" = None
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._sockets = Sockets(endpoint, key)
        self._inbox: deque[_Submitted] = deque()  # handed over, not yet taken in by the thread
        self._woken = False  # whether the thread was told of the inbox and has not come yet
        # Why nothing is taken in any more, once that is so. Who submits adds to the inbox, then
        # looks here; the thread sets it, then looks into the inbox. So nothing is left in there.
        self._end: PronghornError | None = None
        self._loop = _new_loop()
        self._connection: AsyncConnection[_Submitted] | None = None
        self._connecting: asyncio.Task[None] | None = None  # waits for a welcome, if one does
        self._has_given_up = False  # whether calls end because no broker answers
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pronghorn-client", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._end is not None

    def submit(
        self,
        target: Target,
        encoded: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
        on_event: OnEvent | None = None,
        extras: Extras | None = None,
    ) -> "Future[Any]":
        """Open a call; its future is real: it can be waited for, and cancelling it sends cancel."""
        submitted = _Submitted(self, target, encoded, timeout_ms, on_event, extras)
        self._inbox.append(submitted)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take_in)
        if self._end is not None:
            self._refuse(self._end)
        return submitted

    def cancel(self, submitted: _Submitted) -> None:
        """Cancel a call whose future was cancelled."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel, submitted)

    def close(self) -> None:
        """End the thread; calls that are open end with `BrokerLostError`."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:  # else a future's callback closes it
            self._thread.join(_JOIN_S)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        finally:
            self._sockets.close()

    async def _serve(self) -> None:
        end: PronghornError = BrokerLostError("the client's I/O thread has ended")
        try:
            self._connection = self._connect()
            self._take_in()
            await self._stop.wait()
            end = closed_error("not_started")
        except PronghornError as error:
            end = error
        finally:
            self._end = end
            if self._connecting is not None:
                self._connecting.cancel()
            if self._connection is not None:
                self._connection.close()
            self._refuse(end)

    def _connect(self) -> AsyncConnection[_Submitted]:
        return AsyncConnection(
            self._sockets,
            client=CLIENT_NAME,
            connect_timeout_s=self._connect_timeout_s,
            deliver=self._deliver,
        )

    def _take_in(self) -> None:
        """Open what callers have handed over."""
        self._woken = False
        connection = self._connection
        if connection is None or self._end is not None:
            return  # `_serve` deals with it
        if connection.is_closed:  # the broker broke the protocol
            connection = self._connection = self._connect()
            self._connecting = None  # that of the old one is about to end
        if connection.core.info is None and self._connecting is None:
            self._connecting = self._loop.create_task(self._wait_for_welcome(connection))
        inbox = self._inbox
        while inbox:
            submitted = inbox.popleft()
            if submitted.cancelled():
                _begin_end(submitted)
                continue
            try:
                left_ms = submitted.timeout_ms
                if submitted.repeats:
                    left_ms = left_of(left_ms, submitted.begun, again=True)
                if submitted.on_event is not None:
                    wake = partial(self._tell_soon, submitted)
                    submitted.inbox = Inbox(parts=False, events=True, wake=wake)
                submitted.request_id = connection.call(
                    submitted,
                    submitted.target.name,
                    submitted.encoded,
                    left_ms,
                    submitted.inbox,
                    submitted.extras,
                )
            except PronghornError as error:
                _fail(submitted, error)
                continue
            if left_ms is not None:
                submitted.timer = self._loop.call_later(
                    left_ms / 1000 + LATE_S, self._on_late, submitted
                )

    async def _wait_for_welcome(self, connection: AsyncConnection[_Submitted]) -> None:
        """Wait for the broker's welcome, which lets what waits go; give it up if none comes."""
        try:
            await connection.ready()
        except PronghornError as error:
            self._has_given_up = True
            connection.give_up(error.message)
            self._has_given_up = False
        finally:
            if connection is self._connection:
                self._connecting = None

    def _deliver(self, completion: Completion[_Submitted]) -> None:
        submitted = completion.handle
        if submitted.timer is not None:
            submitted.timer.cancel()
        if submitted.inbox is not None:
            self._tell(submitted)
        submitted.request_id = 0
        if self._repeat(submitted, completion.reply) or not _begin_end(submitted):
            return
        try:
            result = result_of(submitted.target, completion.reply, completion.buffers)
        except PronghornError as error:
            submitted.set_exception(error)
        else:
            submitted.set_result(result)

    def _tell_soon(self, submitted: _Submitted) -> None:
        self._loop.call_soon(self._tell, submitted)

    def _tell(self, submitted: _Submitted) -> None:
        """Tell the events that have come; what that raises is the end of the call."""
        inbox, on_event = submitted.inbox, submitted.on_event
        assert on_event is not None
        while inbox is not None and (taken := inbox.take()) is not None:
            owed = inbox.owed()
            if owed is not None and submitted.request_id and self._connection is not None:
                self._connection.give_credit(submitted.request_id, owed)
            message = taken[0]
            if submitted.has_ended or isinstance(message, Part):
                continue
            try:
                on_event(told(message))
            except Exception as error:
                if _begin_end(submitted):
                    submitted.set_exception(error)
                self._cancel(submitted)

    def _repeat(self, submitted: _Submitted, reply: object) -> bool:
        """Make a call again whose broker was lost, where that does no harm."""
        if (
            self._has_given_up
            or self._end is not None
            or submitted.repeats >= REPEATS_MAX
            or not is_worth_repeating(submitted.target, reply, submitted.extras)
        ):
            return False
        submitted.repeats += 1
        self._inbox.append(submitted)
        self._loop.call_soon(self._take_in)
        return True

    def _on_late(self, submitted: _Submitted) -> None:
        _fail(submitted, late(submitted.timeout_ms))
        self._cancel(submitted)

    def _cancel(self, submitted: _Submitted) -> None:
        _begin_end(submitted)
        if submitted.request_id and self._connection is not None:
            self._connection.cancel(submitted.request_id)
            submitted.request_id = 0

    def _refuse(self, error: PronghornError) -> None:
        """Refuse all that is in the inbox, in whatever thread."""
        with suppress(IndexError):
            while True:
                _fail(self._inbox.popleft(), error)


def _fail(submitted: _Submitted, error: PronghornError) -> None:
    if _begin_end(submitted):
        submitted.set_exception(error)


def _begin_end(submitted: _Submitted) -> bool:
    """Whether a result or error is to be set; tells those who wait if it was cancelled."""
    if submitted.has_ended:
        return False
    submitted.has_ended = True
    return submitted.set_running_or_notify_cancel()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's loop where it is installed (not on Windows), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
