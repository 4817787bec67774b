"""A connection on an event loop: a socket, the core, and the loop's readers. An IO shell.

Requests opened within one turn of the loop leave as one message. Belongs to the loop it was made
on. As in connection.py, a hello is sent when the broker has greeted a new connection.

Mirror: tests/client/test_aioconnection.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from os import getpid
from time import monotonic
from typing import Generic

from pronghorn.broker.wire.errors import BrokerLostError, PronghornError
from pronghorn.broker.wire.link import Buffer

from .completions import Completion
from .connection import FRESH_S, closed_error, no_answer, unconnected
from .core import ClientCore, Handle
from .inbox import Credit, Inbox
from .sockets import RETRY_S, Attached, Sockets
from .stopwatch import Extras

_BURST_FRAMES = 64  # taken in before other things on the loop get their turn


class AsyncConnection(Generic[Handle]):
    """One connection; `deliver` is called on the loop with each completion.

    Raises:
        InvalidArgumentError: The endpoint is malformed.
    """

    def __init__(
        self,
        sockets: Sockets,
        *,
        client: str,
        connect_timeout_s: float,
        deliver: Callable[[Completion[Handle]], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._connect_timeout_s = connect_timeout_s
        self._deliver = deliver
        self._pid = getpid()
        self.core: ClientCore[Handle] = ClientCore(client)
        self._socket = sockets.open()
        self._welcomed = asyncio.Event()  # set iff the broker has welcomed us, or it was closed
        self._end: PronghornError | None = None  # why it can't be used any more, if it can't
        self._flush_is_scheduled = False
        self._checked_at = 0.0  # monotonic seconds
        self.is_checked = False  # whether `check` said yes and nothing was sent since
        self._wanted = 0  # how many wait until the broker has welcomed us
        self._retry: asyncio.TimerHandle | None = None  # of the next attempt to connect
        self._expiry: asyncio.TimerHandle | None = None  # of what waits in the core
        self._expires_at = inf  # monotonic seconds; when that is due
        self._attached = Attached(self.loop, self._on_readable, self._on_lost)
        self._socket.attach(self._attached)

    @property
    def is_closed(self) -> bool:
        """Whether it can't be used any more."""
        return self._end is not None

    @property
    def is_inherited(self) -> bool:
        """Whether it is a parent's, seen by its forked child, which must leave it alone."""
        return self._pid != getpid()

    def check(self) -> bool:
        """Tell whether calls can be sent now, on the running loop.

        The loop may have stood still for long, so unless this was asked just before it takes in
        what has come meanwhile: a broker that was started anew must not get what is sent to the old
        one.
        """
        if self.loop is not asyncio.get_running_loop():
            return False
        now = monotonic()
        if now - self._checked_at > FRESH_S:
            self._on_readable()  # which may find the end of the connection
            self._on_lost()
        self._checked_at = now
        self.is_checked = self.core.info is not None
        return self.is_checked

    async def ready(self, timeout_s: float = inf) -> None:
        """Wait until the broker has welcomed us.

        Args:
            timeout_s: How long at most, if that is less than for any connection.

        Raises:
            BrokerLostError: It did not in time, or the connection was closed.
            DeadlineExceededError: It did not within `timeout_s`.
            PermissionDeniedError: It does not let this client in.
            ProtocolError: What answers is no broker.
        """
        self._wanted += 1
        try:
            async with asyncio.timeout(min(timeout_s, self._connect_timeout_s)):
                while self._end is None and self.core.info is None:  # it may be lost again
                    if self._retry is None:
                        self._connect()
                    await self._welcomed.wait()
        except TimeoutError:
            if timeout_s < self._connect_timeout_s:
                raise unconnected(self._sockets.endpoint) from None
            raise no_answer(self._sockets.endpoint, self._connect_timeout_s) from None
        finally:
            self._wanted -= 1
        if self._end is not None:
            raise self._end

    def call(
        self,
        handle: Handle,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
        inbox: Inbox | None = None,
        extras: Extras | None = None,
    ) -> int:
        """Open a call; it leaves with all others of this turn of the loop.

        The first of many leaves alone, as does the only one, which then need not wait for a turn.
        """
        due = None if timeout_ms is None else monotonic() + timeout_ms / 1000
        request_id = self.core.call(handle, node, params, timeout_ms, due, inbox, extras)
        if self.core.is_full_or_alone:
            self._flush()  # so that the broker begins while more calls are made
        elif not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self.loop.call_soon(self._flush)
        return request_id

    def flush(self) -> None:
        """Send at once what was opened in this turn, for those who don't want it bundled."""
        self._flush()

    def chunk(
        self,
        handle: Handle,
        node: str,
        items: bytes,
        timeout_ms: float | None,
        extras: Extras | None = None,
    ) -> int:
        """Open a chunk of a map."""
        due = None if timeout_ms is None else monotonic() + timeout_ms / 1000
        request_id = self.core.chunk(handle, node, items, timeout_ms, due, extras)
        self._schedule_flush()
        return request_id

    def give_credit(self, request_id: int, credit: Credit) -> None:
        """Let a call send more."""
        self.core.credit(request_id, credit)
        self._schedule_flush()

    def ping(self, handle: Handle) -> None:
        """Open a ping."""
        self.core.ping(handle)
        self._schedule_flush()

    def cancel(self, request_id: int) -> None:
        """Cancel a request; its completion is not of interest any more."""
        self.core.cancel(request_id)
        self._schedule_flush()

    def give_up(self, why: str) -> None:
        """End all that is open with `BrokerLostError`."""
        for completion in self.core.lost(why):
            self._deliver(completion)

    def close(self, error: PronghornError | None = None) -> None:
        """Say goodbye and close; what is open ends with `BrokerLostError`.

        Args:
            error: Why, if not because the client was closed.
        """
        if self.is_closed or self.is_inherited:
            return
        self._end = error or closed_error("not_started")
        self._socket.detach()
        if not self.loop.is_closed():
            for timer in self._retry, self._expiry:
                if timer is not None:
                    timer.cancel()
            self.give_up(self._end.message)
            self._welcomed.set()
        self.core.goodbye()
        with suppress(BrokerLostError):
            self._socket.send(self.core.outgoing())
        self._socket.close()

    def _connect(self) -> None:
        """Connect if need be, again and again as long as somebody waits for it."""
        self._retry = None
        if self._end is not None or not self._wanted:
            return
        try:
            if self._socket.connect():
                return
            if self._sockets.is_outdated():
                self._socket.close()
                self._socket = self._sockets.open()
                self._socket.attach(self._attached)
        except PronghornError as error:
            self.close(error)
        else:
            self._connect_soon()

    def _connect_soon(self) -> None:
        if self._retry is None:
            self._retry = self.loop.call_later(RETRY_S, self._connect)

    def _schedule_flush(self) -> None:
        if not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what the core has to send. Guarded by ``scripts/bench guard``."""
        self._flush_is_scheduled = self.is_checked = False
        core = self.core
        now = -inf
        if core.has_waiting:
            now = monotonic()
            for completion in core.expire(now):
                self._deliver(completion)
        sent = False
        try:
            while frames := core.outgoing(now):
                self._socket.send(frames)
                sent = True
                if not core.has_waiting:
                    break
        except BrokerLostError as error:
            self._read_rest()
            self._lost(error.message)
        if sent and self._socket.readable():  # sending may have used up the wake-up
            self.loop.call_soon(self._on_readable)
        if core.has_waiting and core.next_due() < self._expires_at:
            self._watch_deadlines(core.next_due())

    def _watch_deadlines(self, due: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expires_at = due
        self._expiry = self.loop.call_later(due - monotonic(), self._on_expiry)

    def _on_expiry(self) -> None:
        self._expiry, self._expires_at = None, inf
        self._flush()

    def _on_readable(self) -> None:
        if self._end is not None:
            return
        for _ in range(_BURST_FRAMES):
            frame = self._socket.receive()
            if frame is None:
                break
            self._receive(frame)
            if self._end is not None:
                return
            if not self._socket.readable():
                break
        else:
            self.loop.call_soon(self._on_readable)
        if self.core.has_outgoing:
            self._flush()

    def _receive(self, frame: bytes) -> None:
        deliver = self._deliver
        was_welcome = self.core.info is not None
        try:
            completions = self.core.receive((frame,))
        except PronghornError as error:
            self.close(error)
            return
        for completion in completions:
            deliver(completion)
        if self.core.info is None:  # a new connection: the end of the old one is no news
            self._socket.disconnected()
            self._welcomed.clear()
            if not was_welcome:  # else the core has said it
                self.core.hello()
        elif not was_welcome:
            self._welcomed.set()

    def _on_lost(self) -> None:
        if self._end is not None:
            return
        if self._socket.disconnected():
            self._on_disconnected()
        refusal = self._socket.refusal()
        if refusal is not None:  # libzmq connects no more
            self.close(refusal)

    def _on_disconnected(self) -> None:
        self._read_rest()
        if self.core.info is not None:
            self._lost("the broker closed the connection or is gone")
        if self._wanted:
            self._connect_soon()
        if self.core.has_outgoing:
            self._schedule_flush()

    def _read_rest(self) -> None:
        """Take in what came before the end."""
        while self._end is None and (frame := self._socket.receive()) is not None:
            self._receive(frame)

    def _lost(self, why: str) -> None:
        self._welcomed.clear()
        self.give_up(why)
