"""What has come of one call besides its reply, until the program takes it, and the credit for more.

Credit goes back as the program takes things, not as they come, so that no more than was given at
first is ever kept here; and in halves, so that one message of credit does for many parts. Pure.

Mirror: tests/client/test_inbox.py.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from pronghorn.broker.wire.errors import ProtocolError
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.messages import Event as EventMessage
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.messages import Progress as ProgressMessage
from pronghorn.broker.wire.values import decode_value

STREAM_ITEMS: Final = 64
"""Parts that a node may be ahead of the program that reads them."""

STREAM_BYTES: Final = 1 * MIB
"""Bytes of such parts; the last one may go beyond."""

EVENTS: Final = 256
"""Messages of progress and events that a node may be ahead."""

News = Part | ProgressMessage | EventMessage


class Progress(NamedTuple):
    """How far a call is; a newer one says all that an older one did.

    Attributes:
        done: How much is done, in whatever unit.
        total: How much there is to do, `None` if that is not known.
        message: For people.
    """

    done: float
    total: float | None
    message: str


class Event(NamedTuple):
    """Something that a node tells on its way."""

    name: str
    value: Any


OnEvent = Callable[[Progress | Event], object]
"""Called with each progress and event of a call."""


class Credit(NamedTuple):
    """How much more a call may send."""

    items: int
    bytes: int
    events: int


class Inbox:
    """What has come of one call.

    Args:
        parts: Whether parts are taken, which only streaming nodes have.
        events: Whether progress and events are.
        wake: Called when something has come.
        items: Parts that may come ahead.
        bytes_: Bytes of them.
        event_count: Messages of progress and events that may.
    """

    __slots__ = (
        "_event_seq",
        "_halves",
        "_news",
        "_seq",
        "_taken_bytes",
        "_taken_events",
        "_taken_items",
        "events",
        "stream",
        "wake",
    )

    def __init__(
        self,
        *,
        parts: bool,
        events: bool,
        wake: Callable[[], None] | None = None,
        items: int = STREAM_ITEMS,
        bytes_: int = STREAM_BYTES,
        event_count: int = EVENTS,
    ) -> None:
        # What the call asks for, as its options say it.
        self.stream = (items, bytes_) if parts else None
        self.events = event_count if events else None
        self._halves = Credit((items + 1) // 2, (bytes_ + 1) // 2, (event_count + 1) // 2)
        self.wake = wake
        self._news: deque[tuple[News, Sequence[bytes]]] = deque()
        self._seq = 0  # number of the next part
        self._event_seq = 0  # number of the next event
        # What was taken since credit was given last.
        self._taken_items = self._taken_bytes = self._taken_events = 0

    def __bool__(self) -> bool:
        """Tell whether there is something to take."""
        return bool(self._news)

    def put(self, message: News, buffers: Sequence[bytes]) -> None:
        """Take in what has come.

        Raises:
            ProtocolError: It is not the next one.
        """
        if type(message) is Part:
            if message.seq != self._seq:
                raise ProtocolError(f"part {message.seq} came where {self._seq} was to come")
            self._seq += 1
        elif type(message) is EventMessage:
            if message.seq != self._event_seq:
                raise ProtocolError(f"event {message.seq} came where {self._event_seq} was to come")
            self._event_seq += 1
        elif self._news and type(self._news[-1][0]) is ProgressMessage:
            self._news.pop()  # which this one makes old
            self._taken_events += 1
        self._news.append((message, buffers))
        if self.wake is not None:
            self.wake()

    def take(self) -> tuple[News, Sequence[bytes]] | None:
        """Take out the oldest, `None` if there is nothing."""
        if not self._news:
            return None
        message, buffers = taken = self._news.popleft()
        if type(message) is Part:
            self._taken_items += 1
            self._taken_bytes += len(message.value)
            if buffers:
                self._taken_bytes += sum(map(len, buffers))
        else:
            self._taken_events += 1
        return taken

    def owed(self) -> Credit | None:
        """Give the credit for what was taken, `None` while that is less than half of it."""
        halves = self._halves
        if (
            self._taken_items >= halves.items
            or self._taken_bytes >= halves.bytes
            or self._taken_events >= halves.events
        ):
            owed = Credit(self._taken_items, self._taken_bytes, self._taken_events)
            self._taken_items = self._taken_bytes = self._taken_events = 0
            return owed
        return None


def told(message: ProgressMessage | EventMessage) -> Progress | Event:
    """Make of a message what a program is given."""
    if type(message) is ProgressMessage:
        return Progress(message.done, message.total, message.message)
    assert isinstance(message, EventMessage)
    return Event(message.name, decode_value(message.value))
