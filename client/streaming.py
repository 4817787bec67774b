"""Streams as programs have them: iterators over a node's parts.

Mirror: tests/client/test_streaming.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from sys import is_finalizing
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.values import decode_value

from .invocation import REPEATS_MAX, Target, is_worth_repeating, result_of

T = TypeVar("T")

Arrival = tuple[object, Sequence[bytes]]
"""A part, or the reply behind the last one, with its buffers."""


class Arrivals(Protocol):
    """What comes of one call; its events have been told when it is given out."""

    def take(self) -> Arrival | None:
        """Give the next one, `None` if none is there yet."""

    def wait(self) -> None:
        """Wait until there is one."""

    def close(self) -> None:
        """Cancel the call unless it has ended."""


class AsyncArrivals(Protocol):
    """The same on an event loop."""

    def take(self) -> Arrival | None:
        """Give the next one, `None` if none is there yet."""

    async def wait(self) -> None:
        """Wait until there is one."""

    def close(self) -> None:
        """Cancel the call unless it has ended."""


Open = Callable[[bool], Arrivals]
"""Makes the call, for the first time or (`True`) again."""

AsyncOpen = Callable[[bool], Awaitable[AsyncArrivals]]


class Stream(Generic[T]):
    """An iterator over the parts of one call.

    Nothing is sent before the first part is asked for. To leave it, by ``break``, `close`, or by
    letting go of it, cancels the call. May be used by any thread, one at a time.

    Attributes:
        result: What the generator has returned, once all parts were given out.
    """

    def __init__(self, target: Target, open_: Open) -> None:
        self.result: Any = None
        self._target = target
        self._open = open_
        self._arrivals: Arrivals | None = None
        self._given = 0  # parts
        self._repeats = 0
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            while not self._is_over:
                if self._arrivals is None:
                    self._arrivals = self._open(self._repeats > 0)
                arrival = self._arrivals.take()
                if arrival is None:
                    self._arrivals.wait()
                elif type(arrival[0]) is Part:
                    self._given += 1
                    part: T = decode_value(arrival[0].value, arrival[1], self._target.part_type)
                    return part
                else:
                    self._end(arrival)
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """Cancel the call unless it has ended, and give no more parts."""
        self._is_over = True
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            arrivals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_arrivals") and not is_finalizing():
            self.close()

    def _end(self, arrival: Arrival) -> None:
        reply, buffers = arrival
        if may_repeat(self._target, reply, self._given, self._repeats):
            self._repeats += 1
            arrivals, self._arrivals = self._arrivals, None
            if arrivals is not None:
                arrivals.close()
            return
        self.close()
        self.result = returned(reply, buffers, self._target)


class AsyncStream(Generic[T]):
    """An async iterator over the parts of one call; as `Stream`."""

    def __init__(self, target: Target, open_: AsyncOpen) -> None:
        self.result: Any = None
        self._target = target
        self._open = open_
        self._arrivals: AsyncArrivals | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # where it is used
        self._given = 0  # parts
        self._repeats = 0
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            while not self._is_over:
                if self._arrivals is None:
                    self._loop = asyncio.get_running_loop()
                    self._arrivals = await self._open(self._repeats > 0)
                arrival = self._arrivals.take()
                if arrival is None:
                    await self._arrivals.wait()
                elif type(arrival[0]) is Part:
                    self._given += 1
                    part: T = decode_value(arrival[0].value, arrival[1], self._target.part_type)
                    return part
                else:
                    self._end(arrival)
        except BaseException:
            self._close()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the call unless it has ended, and give no more parts."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        loop, arrivals = getattr(self, "_loop", None), getattr(self, "_arrivals", None)
        if loop is not None and arrivals is not None and not loop.is_closed():
            loop.call_soon_threadsafe(arrivals.close)  # this may be in any thread

    def _close(self) -> None:
        self._is_over = True
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            arrivals.close()

    def _end(self, arrival: Arrival) -> None:
        reply, buffers = arrival
        if may_repeat(self._target, reply, self._given, self._repeats):
            self._repeats += 1
            self._arrivals = None
            return
        self._close()
        self.result = returned(reply, buffers, self._target)


def call_telling(target: Target, open_: Open) -> Any:
    """Make a call of which only the events are taken, and return its result.

    Raises:
        PronghornError: It has failed.
        BaseException: What whoever is told of the events has raised; the call is cancelled then.
    """
    repeats = 0
    while True:
        arrivals = open_(repeats > 0)
        try:
            while (arrival := arrivals.take()) is None:
                arrivals.wait()
        finally:
            arrivals.close()
        if not may_repeat(target, arrival[0], 0, repeats):
            return result_of(target, *arrival)
        repeats += 1


async def call_telling_async(target: Target, open_: AsyncOpen) -> Any:
    """Make a call as `call_telling`."""
    repeats = 0
    while True:
        arrivals = await open_(repeats > 0)
        try:
            while (arrival := arrivals.take()) is None:
                await arrivals.wait()
        finally:
            arrivals.close()
        if not may_repeat(target, arrival[0], 0, repeats):
            return result_of(target, *arrival)
        repeats += 1


def may_repeat(target: Target, reply: object, given: int, repeats: int) -> bool:
    """Whether a call is made again: its broker was lost, and the program has no part of it yet."""
    return not given and repeats < REPEATS_MAX and is_worth_repeating(target, reply)


def returned(reply: object, buffers: Sequence[bytes], target: Target) -> Any:
    """Decode what a generator has returned.

    Raises:
        PronghornError: It has failed.
    """
    return result_of(target._replace(result_type=Any), reply, buffers)
