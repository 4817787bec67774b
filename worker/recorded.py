"""Attempts of recorded runs as their worker has them: what is told of them, and asked, by its link.

All of it is for the loop's thread.

Mirror: tests/worker/test_recorded.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.errors import JournalError
from pronghorn.broker.wire.link import (
    Advance,
    AdvanceKept,
    AskHistory,
    Buffer,
    History,
    HistoryPart,
    Recorded,
    Rest,
    ToBroker,
)

Send = Callable[[ToBroker, Sequence[Buffer]], None]

_decode_parts = msgspec.msgpack.Decoder(tuple[HistoryPart, ...]).decode


class Past(NamedTuple):
    """Something that was recorded of a run.

    Attributes:
        value: What was told by `Attempt.advance`; nil stands for the run having been reopened.
        buffers: Of the value.
    """

    value: Raw
    buffers: Sequence[bytes]


class Attempt:
    """One attempt of a recorded run.

    Attributes:
        run: Id of the run.
        has_history: Whether something may have been recorded of it before.
    """

    def __init__(self, recorded: Recorded, send: Send, put: Send) -> None:
        self.run = recorded.run
        self.has_history = recorded.has_history
        self._token = recorded.token
        self._send, self._put = send, put
        self._page: asyncio.Future[tuple[History, Sequence[bytes]]] | None = None
        self._asked = 0  # `Advance` that have asked and are not kept
        self._kept = asyncio.Event()  # set with each that is

    async def history(self) -> list[Past]:
        """Ask for all that was recorded before, in order.

        Raises:
            JournalError: It can't be told.
        """
        found: list[Past] = []
        after, is_last = 0, not self.has_history
        while not is_last:
            self._page = asyncio.get_running_loop().create_future()
            self._send(AskHistory(self._token, after), ())
            page, buffers = await self._page
            if page.problem:
                raise JournalError(page.problem)
            begin = 0
            for part in _decode_parts(page.parts):
                end = begin + part.buffers
                found.append(Past(part.value, buffers[begin:end]))
                after, begin = part.sequence, end
            is_last = page.is_last
        return found

    def advance(
        self,
        value: bytes,
        buffers: Sequence[Buffer],
        tasks: tuple[tuple[str, str], ...],
        *,
        moved: bool,
        asks: bool,
        is_last: bool,
    ) -> None:
        """Have something recorded; see `Advance`. The last one leaves with the end of the run."""
        self._asked += asks
        message = Advance(self._token, Raw(value), tasks, moved, asks, len(buffers))
        (self._put if is_last else self._send)(message, buffers)

    def rest(self, left_s: float | None) -> None:
        """Have the run given out again at a time or at an order; this attempt ends next."""
        self._send(Rest(self._token, left_s), ())

    async def kept(self, at_most: int = 0) -> None:
        """Wait until at most so many of those that have asked are not kept."""
        while self._asked > at_most:
            self._kept.clear()
            await self._kept.wait()

    def take(self, message: History | AdvanceKept, buffers: Sequence[bytes]) -> None:
        """Take in what the broker has to say."""
        if isinstance(message, AdvanceKept):
            self._asked -= 1
            self._kept.set()
        elif self._page is not None and not self._page.done():
            self._page.set_result((message, buffers))


class Attempts:
    """Those of one worker that are under way.

    Args:
        send: Writes to the link.
        put: Has it written with what is sent next.
    """

    def __init__(self, send: Send, put: Send) -> None:
        self._send, self._put = send, put
        self._open: dict[int, Attempt] = {}  # token -> attempt, from before it begins to its end

    def __bool__(self) -> bool:
        return bool(self._open)

    def open(self, recorded: Recorded) -> None:
        """Take in that the request with a token is one."""
        self._open[recorded.token] = Attempt(recorded, self._send, self._put)

    def find(self, token: int) -> Attempt | None:
        """Return the attempt that a request is, if it is one."""
        return self._open.get(token)

    def close(self, token: int) -> None:
        """Forget a request, which has ended or is not begun."""
        self._open.pop(token, None)

    def take(self, message: History | AdvanceKept, buffers: Sequence[bytes]) -> None:
        """Hand on what the broker says of an attempt, unless it has ended."""
        attempt = self._open.get(message.token)
        if attempt is not None:
            attempt.take(message, buffers)
