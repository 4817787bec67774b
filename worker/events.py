"""What one running call tells on its way: progress and events, as far as its caller takes them.

Credit bounds what is under way. Progress gives way: it uses no more than half of the credit, and of
what has to wait only the newest is kept. An event is sent or refused, never lost unseen. While
there is no credit for one, a ``def`` waits for some: but not for long, for it may hold up its
worker, which the caller may be waiting for itself before it reads on. So nobody waits in a circle.

Mirror: tests/worker/test_events.py.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from msgspec import Raw

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import (
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    OverloadedError,
)
from pronghorn.broker.wire.limits import EVENT_BYTES_MAX
from pronghorn.broker.wire.link import Buffer, Emitted, Progressed, RunStream, ToBroker
from pronghorn.broker.wire.values import encode_inline

from .context import Context
from .failures import bounded, message_of

EMIT_WAIT_S: Final = 1.0
"""How long a ``def`` waits for its caller to take more events."""

_LOOK_S: Final = 0.05  # how often a thread looks whether its call was given up


class EventChannel:
    """The progress and events of one call; any thread may use it.

    Args:
        token: Names the request.
        context: The call.
        credit: How much its caller takes at first.
        send: Writes a message to the link, from any thread.
        pump: Waits some seconds for what comes over the link, and takes it in; for a ``def`` in the
            loop's thread, where nobody else reads meanwhile. `None` in all other threads.
    """

    def __init__(
        self,
        token: int,
        context: Context,
        credit: int,
        *,
        send: Callable[[Progressed | Emitted], None],
        pump: Callable[[], Callable[[float], None] | None],
    ) -> None:
        self._token = token
        self._context = context
        self._send = send
        self._pump = pump
        self._changed = threading.Condition()  # guards what follows
        self._credit = credit
        self._kept = credit // 2  # of the credit, for events
        self._latest: Progressed | None = None  # waits for credit
        self._closed = False

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell how far the node is; see `Context.progress`."""
        text = bounded(str(message), EVENT_BYTES_MAX)
        latest = Progressed(self._token, float(done), None if total is None else float(total), text)
        with self._changed:
            self._latest = latest
            if self._credit <= self._kept:
                self._look(0.0)
            self._send_latest()

    def emit(self, name: str, value: Any) -> None:
        """Send an event; see `Context.emit`."""
        emitted = Emitted(self._token, name, Raw(encoded_event(name, value)))
        with self._changed:
            if not self._credit:
                self._wait_for_credit(name)
            if not self._closed:
                self._credit -= 1
                self._send(emitted)

    def more(self, credit: int) -> None:
        """Take in more credit."""
        with self._changed:
            self._credit += credit
            self._send_latest()
            self._changed.notify_all()

    def close(self) -> None:
        """Send nothing more: the node has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _send_latest(self) -> None:
        if self._latest is not None and self._credit > self._kept and not self._closed:
            latest, self._latest = self._latest, None
            self._credit -= 1
            self._send(latest)

    def _look(self, seconds: float) -> None:
        """Let credit come in, if that is for this thread to see to."""
        pump = self._pump()
        if pump is not None:
            pump(seconds)

    def _wait_for_credit(self, name: str) -> None:
        until = monotonic() + EMIT_WAIT_S
        self._look(0.0)
        while not (self._credit or self._closed):
            left_s = until - monotonic()
            node = self._context.node
            if self._context.cancelled:
                details = ErrorDetails(outcome="maybe_executed", node=node)
                raise CancelledError(f"{node}: the call was given up", details)
            if left_s <= 0 or asyncio._get_running_loop() is not None:
                raise OverloadedError(
                    f"{node}: event {name!r} was not sent: the caller takes no more for now",
                    ErrorDetails(outcome="maybe_executed", node=node, retryable=True),
                )
            pump = self._pump()
            if pump is None:
                self._changed.wait(min(left_s, _LOOK_S))
            else:
                pump(left_s)


class EventChannels:
    """The channels of one worker's requests.

    Attributes:
        by_token: A key is here iff that request's node runs and takes a context, and its caller
            takes events. For a look whether there are any, at each call.

    Args:
        send_here: Writes to the link, in the loop's thread.
        send_soon: Has something written, in any other thread.
        pump: Waits so many seconds for what comes over the link, and takes it in.
    """

    def __init__(
        self,
        *,
        send_here: Callable[[ToBroker, Sequence[Buffer]], None],
        send_soon: Callable[[ToBroker], None],
        pump: Callable[[float], None],
    ) -> None:
        self._send_here = send_here
        self._send_soon = send_soon
        self._pump = pump
        self._thread = 0  # which runs the loop
        self._forked = False  # whether this is a child that a node has forked
        self.by_token: dict[int, EventChannel] = {}

    def run_here(self) -> None:
        """Note that this thread is going to run the loop."""
        self._thread = threading.get_ident()

    def leave_to_parent(self) -> None:
        """In a forked child: refuse events, for the link is the parent's."""
        self._forked = True

    def open(self, message: RunStream, context: Context) -> EventChannel:
        """Make the channel of a request that begins."""
        channel = self.by_token[message.token] = EventChannel(
            message.token, context, message.events, send=self._send, pump=self._pump_here
        )
        return channel

    def close(self, token: int) -> None:
        """Close the channel of a request that has ended, if it has one."""
        channel = self.by_token.pop(token, None)
        if channel is not None:
            channel.close()

    def more(self, token: int, credit: int) -> None:
        """Give a request credit for events, unless it has ended."""
        channel = self.by_token.get(token)
        if channel is not None and credit:
            channel.more(credit)

    def _send(self, message: Progressed | Emitted) -> None:
        if self._forked:
            raise RuntimeError("a forked child can't tell of events: the link is its parent's")
        if threading.get_ident() == self._thread:
            self._send_here(message, ())
        else:
            self._send_soon(message)

    def _pump_here(self) -> Callable[[float], None] | None:
        """Return what waits for the link, in the loop's thread while no coroutine runs there."""
        if threading.get_ident() != self._thread or asyncio._get_running_loop() is not None:
            return None
        return self._pump


def encoded_event(name: str, value: Any) -> bytes:
    """Encode the value of an event.

    Raises:
        InvalidArgumentError: It can't be, or is too large.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"an event's name is text, not {name!r}")
    try:
        body = encode_inline(value)
        size = max(len(body), len(name.encode()))
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(
            f"event {name!r} can't be encoded: {message_of(error)}"
        ) from error
    if size > EVENT_BYTES_MAX:
        raise InvalidArgumentError(
            f"event {name[:40]!r} has {size} bytes, the limit is {EVENT_BYTES_MAX}",
            ErrorDetails(limit=EVENT_BYTES_MAX),
        )
    return body
