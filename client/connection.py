"""A connection that blocks: a socket, the core, and the thread that uses it. An IO shell.

Used by one thread at a time. Whoever waits reads for all: replies of other requests that are open
on the connection are kept with their waiters.

Mirror: tests/client/test_connection.py.
"""

from collections.abc import Sequence
from math import ceil, inf
from os import getpid
from time import monotonic
from typing import Any

import zmq
from zmq.backend import zmq_poll

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
)
from pronghorn.broker.wire.link import Buffer

from .core import ClientCore, Completion, Reply
from .sockets import RECONNECT_MS, BrokerSocket

LATE_S = 1.0
"""How long after its deadline a call waits for the broker's word on it before it gives up."""


FRESH_S = 0.005
"""So long after a reply the next call is sent without a look whether the connection was made anew:
a lost one is not tried again before RECONNECT_MS have passed."""

assert FRESH_S < RECONNECT_MS / 1000


class Waiter:
    """Somebody who waits for one reply."""

    __slots__ = ("buffers", "reply", "request_id")

    def __init__(self) -> None:
        self.request_id = 0
        self.reply: Reply | None = None
        self.buffers: Sequence[bytes] = ()


class Connection:
    """One connection. Connects at once and waits for the broker's welcome.

    Raises:
        BrokerLostError: No broker answered in time.
        InvalidArgumentError: The endpoint is malformed.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        *,
        client: str,
        connect_timeout_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self.pid = getpid()  # the process it belongs to: a fork must not use it
        self.core: ClientCore[Waiter] = ClientCore(client)
        self._heard_at = -inf  # monotonic seconds; when the last call's reply came
        self._socket = BrokerSocket(context, endpoint)
        try:
            self._shake_hands()
        except BaseException:
            self._socket.close()
            raise

    def call(
        self,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
    ) -> Waiter:
        """Make a call and wait for its reply. Guarded by ``scripts/bench guard``."""
        if monotonic() - self._heard_at > FRESH_S:
            self.refresh()
        waiter = Waiter()
        waiter.request_id = self.core.call(waiter, node, params, timeout_ms)
        self.wait_for(waiter, timeout_ms)
        self._heard_at = monotonic()
        return waiter

    def open_chunk(self, node: str, items: bytes, timeout_ms: float | None) -> Waiter:
        """Open a chunk of a map without waiting for it."""
        waiter = Waiter()
        waiter.request_id = self.core.chunk(waiter, node, items, timeout_ms)
        return waiter

    def ping(self, timeout_s: float) -> Waiter:
        """Ask the broker for a sign of life."""
        self.refresh()
        waiter = Waiter()
        waiter.request_id = self.core.ping(waiter)
        self.wait_for(waiter, timeout_s * 1000)
        return waiter

    def wait_for(self, waiter: Waiter, timeout_ms: float | None) -> None:
        """Wait until a request has its reply; if the wait is broken off, the request is cancelled.

        Raises:
            DeadlineExceededError: The broker said nothing for `LATE_S` after the deadline.
        """
        due = None if timeout_ms is None else monotonic() + timeout_ms / 1000 + LATE_S
        try:
            self.flush()
            # Most replies come soon, and a receive that blocks is the cheapest way to wait; but it
            # can't hear of a lost connection, so the rest of the wait is a poll.
            frame = self._socket.receive_soon()
            if frame is not None:
                self._take_in((frame,))
            while waiter.reply is None:
                if not self.turn(due):
                    raise late(timeout_ms)
        except BaseException:
            if waiter.reply is None:
                self.core.cancel(waiter.request_id)
                self._flush_if_possible()
            raise

    def refresh(self) -> None:
        """Take in what has come meanwhile; shake hands again if the connection was lost."""
        if self._socket.readable():
            self._read()
        if self.core.info is None:
            self._shake_hands()

    def turn(self, due: float | None) -> bool:
        """Wait for the next message and take it in; `False` when the time is up."""
        timeout = -1 if due is None else max(0, ceil((due - monotonic()) * 1000))
        ready: list[tuple[Any, int]] = zmq_poll(self._socket.poll_items, timeout)
        if not ready:
            return False
        if ready[0][0] is self._socket.poll_items[0][0]:
            self._read()
        elif self._socket.disconnected():
            self._read()  # what came before the end
            self._lost("the broker closed the connection or is gone")
        self.flush()
        return True

    def flush(self) -> None:
        """Send what the core has to send."""
        core = self.core
        while frames := core.outgoing():
            try:
                self._socket.send(frames)
            except BrokerLostError as error:
                self._lost(error.message)
                return
            if not core.has_waiting:
                return

    def close(self) -> None:
        """Say goodbye and close."""
        if self.pid == getpid():
            if self.core.info is not None:
                self.core.goodbye()
                self._flush_if_possible()
            self._socket.close()

    def _shake_hands(self) -> None:
        due = monotonic() + self._connect_timeout_s
        while True:
            left_ms = ceil((due - monotonic()) * 1000)
            if left_ms <= 0 or not zmq_poll(self._socket.poll_writable, left_ms):
                raise BrokerLostError(
                    f"no broker answers at {self._endpoint} within {self._connect_timeout_s:g} s: "
                    "is `pronghorn serve` running?",
                    ErrorDetails(outcome="not_started", retryable=True),
                )
            self._socket.disconnected()  # of an earlier connection
            self.core.hello()
            self.flush()
            while self.core.info is None and self.turn(due):
                pass
            if self.core.info is not None:
                return

    def _read(self) -> None:
        while (frame := self._socket.receive()) is not None:
            self._take_in((frame,))
            if not self._socket.readable():
                return

    def _take_in(self, frames: Sequence[bytes]) -> None:
        self._deliver(self.core.receive(frames))
        if self.core.info is None:  # a new connection: the end of the old one is no news
            self._socket.disconnected()

    def _lost(self, why: str) -> None:
        self._heard_at = -inf
        self._deliver(self.core.lost(why))

    @staticmethod
    def _deliver(completions: list[Completion[Waiter]]) -> None:
        for completion in completions:
            waiter = completion.handle
            waiter.reply = completion.reply
            waiter.buffers = completion.buffers

    def _flush_if_possible(self) -> None:
        frames = self.core.outgoing()
        if frames:
            try:
                self._socket.send(frames)
            except BrokerLostError:
                self.core.lost("the connection was lost")


def late(timeout_ms: float | None) -> DeadlineExceededError:
    """Make the error of a caller who waited in vain for the broker's word on the deadline."""
    return DeadlineExceededError(
        f"no word from the broker {LATE_S:g} s after the timeout of {timeout_ms} ms",
        ErrorDetails(outcome="maybe_executed"),
    )
