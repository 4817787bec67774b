"""Streams and events of an in-process pool: a generator is driven as its parts are taken.

So it is never ahead of who reads it, as others are by their credit. Whoever wants to hear of events
is called where the node runs, on an event loop on that loop.

Mirror: tests/worker/test_local_streams.py.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from pronghorn.broker.wire.errors import ErrorDetails, InvalidArgumentError
from pronghorn.broker.wire.limits import EVENT_BYTES_MAX
from pronghorn.broker.wire.link import Buffer, RunCall, RunStream, Yielded
from pronghorn.broker.wire.messages import Error, Part
from pronghorn.broker.wire.values import decode_value
from pronghorn.client.inbox import Event, OnEvent, Progress
from pronghorn.client.invocation import refused
from pronghorn.client.streaming import Arrival
from pronghorn.client.transport import Answer

from .context import Context
from .dispatch import Entry
from .events import encoded_event
from .failures import bounded
from .streaming import Steps, StreamWord

Parts = deque[Arrival]

ENDED: Final[Answer] = (None, ())
"""Stands for the reply to what was left."""

_BOUNDLESS: Final = 2**62  # credit


class LocalChannel:
    """Tells whoever wants to hear of the progress and events of one call.

    Attributes:
        error: What that has raised; the call is given up for it.
    """

    def __init__(self, context: Context, on_event: OnEvent) -> None:
        self.error: BaseException | None = None
        self._context = context
        self._on_event = on_event
        self._loop = asyncio._get_running_loop()  # where to tell it, if not wherever that is
        self._thread = threading.get_ident()

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell how far the node is."""
        text = bounded(str(message), EVENT_BYTES_MAX)
        self._tell(Progress(float(done), None if total is None else float(total), text))

    def emit(self, name: str, value: Any) -> None:
        """Tell of an event, whose value is as if it had travelled."""
        self._tell(Event(name, decode_value(encoded_event(name, value))))

    def _tell(self, news: Progress | Event) -> None:
        if self._loop is not None and threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._tell_here, news)
        else:
            self._tell_here(news)

    def _tell_here(self, news: Progress | Event) -> None:
        if self.error is not None:
            return
        try:
            self._on_event(news)
        except BaseException as error:  # not the node's to see
            self.error = error
            self._context.mark_cancelled()


class LocalArrivals:
    """What comes of one call of a sync client; see `Arrivals`.

    Args:
        step: Makes the next part, or gives the reply behind the last.
        close: Ends what is left of it.
        parts: Where `step` puts parts.
        channel: Where its events go, if somebody hears them.
    """

    def __init__(
        self,
        step: Callable[[], Answer | None],
        close: Callable[[], None],
        parts: Parts,
        channel: LocalChannel | None,
    ) -> None:
        self._step = step
        self._close = close
        self._parts = parts
        self._channel = channel
        self._end: Answer | None = None

    def take(self) -> Arrival | None:
        """Give the next part, or the reply behind the last, once it was made."""
        while not self._parts and self._end is None:
            self._end = self._step()
            raise_told(self._channel)
        return self._parts.popleft() if self._parts else self._end

    def wait(self) -> None:
        """Do not wait: `take` does."""

    def close(self) -> None:
        """Close the generator unless it has ended."""
        if self._end is None:
            self._end = ENDED
            self._close()


class LocalAsyncArrivals:
    """The same for an async client; see `AsyncArrivals`."""

    def __init__(
        self,
        step: Callable[[], Awaitable[Answer | None]],
        close: Callable[[], None],
        parts: Parts,
        channel: LocalChannel | None,
    ) -> None:
        self._step = step
        self._close = close
        self._parts = parts
        self._channel = channel
        self._end: Answer | None = None

    def take(self) -> Arrival | None:
        """Give the next part, or the reply behind the last, if it was made."""
        return self._parts.popleft() if self._parts else self._end

    async def wait(self) -> None:
        """Make the next one."""
        self._end = await self._step()
        raise_told(self._channel)

    def close(self) -> None:
        """Close the generator unless it has ended."""
        if self._end is None:
            self._end = ENDED
            self._close()


class ThreadSteps:
    """A generator whose steps are made in threads, by somebody who may not wait for one."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lock = threading.Lock()  # held during a step
        self._closed = False

    def step(self) -> StreamWord | None:
        """Make the next part."""
        with self._lock:
            word = self._steps.step()
            if self._closed:
                self._steps.close()
            return word

    def close(self) -> None:
        """Close the generator, at once or at the end of the step that is under way."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._steps.close()
            self._lock.release()


def raise_told(channel: LocalChannel | None) -> None:
    """Raise what was raised by whoever is told of events."""
    if channel is not None and channel.error is not None:
        raise channel.error


def put_into(parts: Parts) -> Callable[[Yielded, Sequence[Buffer]], None]:
    """Give what takes the parts of a generator, as if they had travelled."""

    def put(message: Yielded, buffers: Sequence[Buffer]) -> None:
        copies = [bytes(buffer) for buffer in buffers]
        parts.append((Part(message.token, 0, message.value, message.buffers), copies))

    return put


def as_stream(message: RunCall) -> RunStream:
    """Make a call one whose parts are taken, however many."""
    return RunStream(
        message.token,
        message.slot,
        message.node,
        message.codec,
        message.params,
        message.left_ms,
        message.buffers,
        message.depth,
        takes_parts=True,
        items=_BOUNDLESS,
        bytes=_BOUNDLESS,
    )


def no_generator(entry: Entry) -> Error:
    """Make the reply to a stream of a node that has no parts."""
    why = f"{entry.name}: it is no generator and has no parts: call it without stream"
    details = ErrorDetails(outcome="not_started", node=entry.name)
    return refused(InvalidArgumentError(why, details))
