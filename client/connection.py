"""A connection that blocks: a socket, the core, and the thread that uses it. An IO shell.

Used by one thread at a time. Whoever waits reads for all: replies of other requests that are open
on the connection are kept with their waiters. What may interrupt a thread anywhere and come back,
a signal handler or a finalizer, uses another connection than one that has `uses`.

The broker greets each new connection, and the greeting is what a hello is sent for: so the hello,
and all that waits for its welcome, can't get lost in the old connection.

Mirror: tests/client/test_connection.py.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from math import ceil, inf
from os import getpid
from sys import is_finalizing
from time import monotonic
from types import TracebackType
from typing import Self

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    Outcome,
)
from pronghorn.broker.wire.link import Buffer

from .completions import Completion, Reply
from .core import ClientCore
from .inbox import Credit, Inbox
from .invocation import left_of, refused
from .sockets import RETRY_S, Sockets
from .stopwatch import Extras

LATE_S = 1.0
"""How long after its deadline a call waits for the broker's word on it before it gives up."""


FRESH_S = 0.005
"""So long after a call was sent the next one is sent without a look whether the connection was made
anew: a lost one is not tried again before `RETRY_S` has passed."""

assert FRESH_S < RETRY_S

# Whatever else ends a call, such as Ctrl-C, may have struck in the middle of anything.
_HARMLESS = (BrokerLostError, DeadlineExceededError, InvalidArgumentError)


class Waiter:
    """Somebody who waits for one reply."""

    __slots__ = ("buffers", "reply", "request_id")

    def __init__(self) -> None:
        self.request_id = 0
        self.reply: Reply | None = None
        self.buffers: Sequence[bytes] = ()


class Connection:
    """One connection; made when it is first used.

    As a context manager it is in use for the time of the block: `close` then leaves the closing to
    the end of it.

    Args:
        sockets: Makes its socket.
        client: Names the program, for people.
        connect_timeout_s: How long to wait for the broker's welcome.
        bell: A descriptor that becomes readable when it is closed by another thread.
        closed: Called once, when it was closed.

    Raises:
        InvalidArgumentError: The endpoint is malformed.
    """

    def __init__(
        self,
        sockets: Sockets,
        *,
        client: str,
        connect_timeout_s: float,
        bell: int,
        closed: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._bell = bell
        self._connect_timeout_s = connect_timeout_s
        self._pid = getpid()  # the process it belongs to: a fork must not use it
        self.core: ClientCore[Waiter] = ClientCore(client)
        self._sent_at = -inf  # monotonic seconds; when the last call was sent, if it is not lost
        # Who uses it counts itself here, then looks at `closing`; who closes it sets `closing`,
        # then looks here. So one of them sees the other, and nobody closes what is in use.
        self.uses = 0
        self.closing = False  # whether it must not be used any more
        self._broken_off = False  # whether requests were open when it was closed
        self._unclosed = threading.Lock()  # taken by whoever closes it
        self._on_closed = closed
        self._socket = sockets.open(bell)

    def __del__(self) -> None:
        if hasattr(self, "_socket") and not is_finalizing():  # it was made, and can be closed
            self.close()

    def __enter__(self) -> Self:
        self.uses += 1
        if self.closing:
            error = self._closed_error()
            self._let_go()
            raise error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, _HARMLESS):
            self.closing = True
        self._let_go()

    def connect(self) -> None:
        """Make sure that the broker is there.

        Raises:
            BrokerLostError: No broker answered in time.
            PermissionDeniedError: It does not let this client in.
        """
        with self:
            self._refresh()

    def call(
        self,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
        extras: Extras | None = None,
    ) -> Waiter:
        """Make a call and wait for its reply. Guarded by ``scripts/bench guard``.

        Whatever breaks off the wait, the call is cancelled.

        Raises:
            BrokerLostError: No broker answered in time; the call was not sent.
            DeadlineExceededError: The time was over before a broker answered, or the broker said
                nothing for `LATE_S` after the deadline.
            InvalidArgumentError: The call is over the broker's limits.
        """
        self.uses += 1
        try:
            if self.closing:
                raise closed_error("not_started")
            begun = monotonic()
            due = None if timeout_ms is None else begun + timeout_ms / 1000
            if begun - self._sent_at > FRESH_S:
                self._refresh(due)
            while True:
                waiter = Waiter()
                left_ms = None if timeout_ms is None else left_of(timeout_ms, begun)
                waiter.request_id = self.core.call(
                    waiter, node, params, left_ms, due, extras=extras
                )
                if self._send():
                    break
                self._refresh(due)  # it was not sent: the connection was lost since the last call
            self._sent_at = monotonic()
            self._wait_for(waiter, None if due is None else due + LATE_S)
            if waiter.reply is None:
                raise late(timeout_ms)
        except _HARMLESS:
            raise
        except BaseException:
            self.closing = True  # which cancels what is open
            raise
        finally:
            self.uses -= 1
            if self.closing:
                self.close()
        return waiter

    def ping(self, timeout_s: float) -> Waiter:
        """Ask the broker that it is connected to for a sign of life.

        Raises:
            DeadlineExceededError: It gave none.
        """
        with self:
            waiter = Waiter()
            waiter.request_id = self.core.ping(waiter)
            self.flush()
            self._wait_for(waiter, monotonic() + timeout_s)
        if waiter.reply is None:
            raise unanswered(timeout_s)
        return waiter

    def open_chunk(
        self, node: str, items: bytes, timeout_ms: float | None, extras: Extras | None = None
    ) -> Waiter:
        """Send a chunk of a map; its waiter may have its reply at once if it can't be sent.

        Raises:
            BrokerLostError: No broker answered in time.
        """
        with self:
            begun = monotonic()
            due = None if timeout_ms is None else begun + timeout_ms / 1000
            if self.core.info is None:
                self._refresh(due)
            waiter = Waiter()
            try:
                left_ms = left_of(timeout_ms, begun)
                waiter.request_id = self.core.chunk(waiter, node, items, left_ms, due, extras)
                self.flush()
            except InvalidArgumentError as error:
                waiter.reply = refused(error)
            return waiter

    def open_stream(
        self,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
        inbox: Inbox,
        extras: Extras | None = None,
    ) -> Waiter:
        """Make a call whose parts and events go into an inbox; errors as in `call`."""
        with self:
            begun = monotonic()
            due = None if timeout_ms is None else begun + timeout_ms / 1000
            while True:
                self._refresh(due)
                waiter = Waiter()
                left_ms = left_of(timeout_ms, begun)
                waiter.request_id = self.core.call(
                    waiter, node, params, left_ms, due, inbox, extras
                )
                if self._send():
                    return waiter

    def wait_for_news(self, waiter: Waiter, inbox: Inbox, due: float | None) -> bool:
        """Wait until something is in the inbox, or the reply has come; `False` if not in time."""
        with self:
            frame = self._socket.receive_soon()  # as in `_wait_for`
            while frame is not None:
                self._take_in((frame,))
                frame = self._socket.receive() if self._socket.readable() else None
            while waiter.reply is None and not inbox:
                if not self._turn(due):
                    return False
            return True

    def give_credit(self, request_id: int, credit: Credit) -> None:
        """Let a call send more."""
        if not self.closing:
            with self:
                self.core.credit(request_id, credit)
                self.flush()

    def wait_for_any(self, waiters: Collection[Waiter]) -> None:
        """Wait until at least one of several requests has its reply."""
        with self:
            while not any(waiter.reply for waiter in waiters):
                self._turn(None)

    def cancel(self, waiters: Collection[Waiter]) -> None:
        """Cancel requests whose replies are not of interest any more."""
        if waiters and self._pid == getpid() and not self.closing:
            with self:
                for waiter in waiters:
                    self.core.cancel(waiter.request_id)
                self.flush()

    def flush(self) -> bool:
        """Send what the core has to send; `False` if there is no connection, so nothing was sent.

        Then all that is open has ended.
        """
        self._expire()
        return self._send()

    def close(self) -> None:
        """Say goodbye and close; what is in use is closed by its user as soon as it wakes up."""
        self.closing = True
        if self.uses or not self._unclosed.acquire(blocking=False):
            return
        if self._pid == getpid():
            self._broken_off = bool(self.core.open_requests)
            if self.core.info is not None:
                self.core.goodbye()
                self.flush()
            self._socket.close()
            self._on_closed()

    def _let_go(self) -> None:
        self.uses -= 1
        if self.closing:
            self.close()

    def _expire(self) -> bool:
        """End what waits in the core and whose time is over; returns whether there was any."""
        if not self.core.has_waiting:
            return False
        ended = self.core.expire(monotonic())
        self._deliver(ended)
        return bool(ended)

    def _send(self) -> bool:
        core, send = self.core, self._socket.send
        now = monotonic() if core.has_waiting else -inf
        try:
            while frames := core.outgoing(now):
                send(frames)
                if not core.has_waiting:
                    break
        except BrokerLostError as error:
            self._read_rest()  # what came before the end
            self._lost(error.message)
            return False
        return True

    def _refresh(self, due: float | None = None) -> None:
        """Take in what has come meanwhile; shake hands again if the connection was lost.

        Raises:
            BrokerLostError: No broker answered in time.
            DeadlineExceededError: None did by `due`, which came before.
        """
        self._read_rest()
        if self._socket.disconnected() and self.core.info is not None:
            self._lost("the connection to the broker was lost")
        if self.core.info is None:
            self._shake_hands(due)

    def _shake_hands(self, call_due: float | None) -> None:
        due = monotonic() + self._connect_timeout_s
        is_call_s = call_due is not None and call_due < due
        if call_due is not None and is_call_s:
            due = call_due
        while self.core.info is None:
            refusal = self._socket.refusal()
            if refusal is not None:  # which closes this: libzmq connects no more
                raise refusal
            in_time = True
            if self._socket.connect():
                in_time = self._turn(due)
                if self.core.info is not None or self.core.has_outgoing:  # was welcomed or greeted
                    continue
            elif self._sockets.is_outdated():
                self._socket.close()
                self._socket = self._sockets.open(self._bell)
            left_s = due - monotonic()
            if is_call_s and (not in_time or left_s <= 0):
                raise unconnected(self._sockets.endpoint)
            if not is_call_s and (not in_time or left_s <= RETRY_S):
                raise no_answer(self._sockets.endpoint, self._connect_timeout_s)
            self._socket.disconnected()  # which is no news here, and must not end the wait
            self._wait(min(RETRY_S, left_s))

    def _wait_for(self, waiter: Waiter, due: float | None) -> None:
        """Wait until a request has its reply; cancel it when the time is up."""
        # Most replies come soon, and a receive that blocks is the cheapest way to wait; but it
        # can't hear of a lost connection, so the rest of the wait is a poll.
        frame = self._socket.receive_soon()
        if frame is not None:
            self._take_in((frame,))
        while waiter.reply is None:
            if not self._turn(due):
                self.core.cancel(waiter.request_id)
                self.flush()
                return

    def _turn(self, due: float | None) -> bool:
        """Send, wait for the next message and take it in; `False` when the time is up."""
        if self._expire() or not self._send():  # else all that is open has ended
            return True
        until = self.core.next_due() if self.core.has_waiting else inf
        if due is not None and due < until:
            until = due
        if not self._wait(None if until == inf else until - monotonic()):
            return until != due  # else what waits here has come to its end
        self._read()
        if self._socket.disconnected():
            self._read_rest()  # what came before the end
            if self.core.info is not None:
                self._lost("the broker closed the connection or is gone")
        return True

    def _wait(self, seconds: float | None) -> bool:
        """Wait for news; `False` if there were none in time."""
        happened = self._socket.wait(-1 if seconds is None else max(0, ceil(seconds * 1000)))
        if self.closing:
            raise self._closed_error()
        return happened

    def _closed_error(self) -> BrokerLostError:
        some_open = self._broken_off or self.core.open_requests
        return closed_error("maybe_executed" if some_open else "not_started")

    def _read(self) -> None:
        while (frame := self._socket.receive()) is not None:
            self._take_in((frame,))
            if not self._socket.readable():
                return

    def _read_rest(self) -> None:
        """Take in all that has come, and hear of the end if that has."""
        while (frame := self._socket.receive()) is not None:
            self._take_in((frame,))

    def _take_in(self, frames: Sequence[bytes]) -> None:
        was_welcome = self.core.info is not None
        self._deliver(self.core.receive(frames))
        if self.core.info is None:  # a new connection: the end of the old one is no news
            self._socket.disconnected()
            if not was_welcome:  # else the core has said it
                self.core.hello()

    def _lost(self, why: str) -> None:
        self._sent_at = -inf
        self._deliver(self.core.lost(why))

    @staticmethod
    def _deliver(completions: list[Completion[Waiter]]) -> None:
        for completion in completions:
            waiter = completion.handle
            waiter.reply = completion.reply
            waiter.buffers = completion.buffers


def late(timeout_ms: float | None) -> DeadlineExceededError:
    """Make the error of a caller who waited in vain for the broker's word on the deadline."""
    return DeadlineExceededError(
        f"no word from the broker {LATE_S:g} s after the timeout of {timeout_ms} ms",
        ErrorDetails(outcome="maybe_executed"),
    )


def unanswered(timeout_s: float) -> DeadlineExceededError:
    """Make the error of a ping that was not answered."""
    return DeadlineExceededError(f"the broker did not answer a ping within {timeout_s:g} s")


def no_answer(endpoint: str, connect_timeout_s: float) -> BrokerLostError:
    """Make the error of a client that was not welcomed."""
    return BrokerLostError(
        f"no broker answers at {endpoint} within {connect_timeout_s:g} s: "
        "is `pronghorn serve` running?",
        ErrorDetails(outcome="not_started", retryable=True),
    )


def unconnected(endpoint: str) -> DeadlineExceededError:
    """Make the error of a call whose time was over before a broker had welcomed its client."""
    return DeadlineExceededError(
        f"no broker answered at {endpoint} before the deadline: is `pronghorn serve` running?",
        ErrorDetails(outcome="not_started", retryable=True),
    )


def closed_error(outcome: Outcome) -> BrokerLostError:
    """Make the error of a request that its own client has ended by closing."""
    return BrokerLostError("the client was closed", ErrorDetails(outcome=outcome))
