"""The async client's connection to a broker.

Mirror: tests/client/test_aioremote.py.
"""

import asyncio
from math import inf
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .completions import Completion
from .connection import LATE_S, closed_error, late, unanswered
from .inbox import Inbox, OnEvent, told
from .invocation import Params, check_pong, left_of, refused
from .sockets import Sockets
from .stopwatch import Extras
from .streaming import Arrival
from .transport import Answer

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

_Future = asyncio.Future[Any]  # of an Answer


class AsyncRemoteTransport:
    """The connection of one client, made when it is first used.

    It is made anew where the client is used on another loop than before, one after the other, and
    in a forked child.
    """

    def __init__(
        self,
        endpoint: str,
        connect_timeout_s: float,
        key: "PrivateKey | None" = None,
        *,
        client: str = CLIENT_NAME,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._client = client  # as it names itself
        self._connect_timeout_s = connect_timeout_s
        self._sockets: Sockets | None = None
        self._connection: AsyncConnection[_Future] | None = None
        self._closed = False

    async def connect(self) -> None:
        """Wait for the broker's welcome."""
        try:
            await self._ready()
        except BaseException:
            self._disconnect()
            raise

    async def call(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Answer:
        """Make a call and wait for its reply. Guarded by ``scripts/bench guard``."""
        connection = self._connection
        if connection is None or not (connection.is_checked or connection.check()):
            begun = monotonic()
            connection = await self._ready(timeout_ms)
            timeout_ms = left_of(timeout_ms, begun)
        future: _Future = connection.loop.create_future()
        request_id = connection.call(future, node, params, timeout_ms, extras=extras)
        try:
            answer: Answer = await (future if timeout_ms is None else _within(future, timeout_ms))
        except BaseException:
            connection.cancel(request_id)
            raise
        return answer

    async def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> "_RemoteArrivals":
        """Make a call whose parts or events are taken as they come."""
        begun = monotonic()
        connection = await self._ready(timeout_ms)
        timeout_ms = left_of(timeout_ms, begun)
        future: _Future = connection.loop.create_future()
        inbox = Inbox(parts=parts, events=on_event is not None)
        request_id = connection.call(future, node, params, timeout_ms, inbox, extras)
        return _RemoteArrivals(connection, request_id, future, inbox, timeout_ms, on_event)

    async def chunk(
        self, node: str, items: bytes, timeout_ms: float | None, extras: Extras | None = None
    ) -> object:
        """Run a chunk of a map."""
        connection = self._connection
        if connection is None or not connection.check():
            begun = monotonic()
            connection = await self._ready(timeout_ms)
            timeout_ms = left_of(timeout_ms, begun)
        future: _Future = connection.loop.create_future()
        try:
            request_id = connection.chunk(future, node, items, timeout_ms, extras)
        except InvalidArgumentError as error:
            return refused(error)
        try:
            answer: Answer = await (future if timeout_ms is None else _within(future, timeout_ms))
        except BaseException:
            connection.cancel(request_id)
            raise
        return answer[0]

    async def ping(self, timeout_s: float) -> float:
        """Return the seconds of one round trip to the broker itself."""
        connection = await self._ready()
        future: _Future = connection.loop.create_future()
        begun = perf_counter()
        connection.ping(future)
        try:
            async with asyncio.timeout(timeout_s):
                answer: Answer = await future
        except TimeoutError:
            raise unanswered(timeout_s) from None
        check_pong(answer[0])
        return perf_counter() - begun

    async def close(self) -> None:
        """Close the connection; open calls end with `BrokerLostError`."""
        self._closed = True
        self._disconnect()

    async def _ready(self, timeout_ms: float | None = None) -> AsyncConnection[_Future]:
        """Return the connection once the broker has welcomed it; make it first if need be."""
        if self._closed:
            raise closed_error("not_started")
        connection = self._connection
        if (
            connection is None
            or connection.is_closed
            or connection.loop is not asyncio.get_running_loop()
        ):
            connection = self._connect()
        if not connection.check():
            await connection.ready(inf if timeout_ms is None else timeout_ms / 1000)
        return connection

    def _connect(self) -> AsyncConnection[_Future]:
        connection = self._connection
        if connection is not None and connection.is_inherited:
            self._connection = self._sockets = None
        elif connection is not None and not connection.is_closed and connection.loop.is_running():
            raise RuntimeError("an AsyncClient is for one event loop at a time: make another one")
        self._disconnect()
        self._sockets = Sockets(self._endpoint, self._key)
        self._connection = AsyncConnection(
            self._sockets,
            client=self._client,
            connect_timeout_s=self._connect_timeout_s,
            deliver=_deliver,
        )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None


class _RemoteArrivals:
    """What comes of one call; see `AsyncArrivals`."""

    def __init__(
        self,
        connection: AsyncConnection[_Future],
        request_id: int,
        future: _Future,
        inbox: Inbox,
        timeout_ms: float | None,
        on_event: OnEvent | None,
    ) -> None:
        self._connection = connection
        self._request_id = request_id
        self._future = future
        self._inbox = inbox
        self._timeout_ms = timeout_ms
        self._due = None if timeout_ms is None else monotonic() + timeout_ms / 1000 + LATE_S
        self._on_event = on_event
        self._news = asyncio.Event()
        inbox.wake = self._news.set
        future.add_done_callback(lambda _: self._news.set())

    def take(self) -> Arrival | None:
        """Give the next part, or the reply behind the last; tell the events before it."""
        inbox = self._inbox
        while (taken := inbox.take()) is not None:
            owed = inbox.owed()
            if owed is not None and not self._future.done():
                self._connection.give_credit(self._request_id, owed)
            message, buffers = taken
            if isinstance(message, Part):
                return message, buffers
            if self._on_event is not None:
                self._on_event(told(message))
        if not self._future.done():
            return None
        answer: Answer = self._future.result()
        return answer

    async def wait(self) -> None:
        """Wait until there is one.

        Raises:
            DeadlineExceededError: The broker said nothing for `LATE_S` after the deadline.
        """
        self._news.clear()
        if self._inbox or self._future.done():
            return
        if self._due is None:
            await self._news.wait()
            return
        try:
            async with asyncio.timeout(self._due - monotonic()):
                await self._news.wait()
        except TimeoutError:
            raise late(self._timeout_ms) from None

    def close(self) -> None:
        """Cancel the call unless it has ended."""
        if not self._future.done():
            self._future.cancel()
            self._connection.cancel(self._request_id)


def _deliver(completion: Completion[_Future]) -> None:
    # Not the completion itself: it holds the future, and a cycle waits for the collector.
    if not completion.handle.done():
        completion.handle.set_result((completion.reply, completion.buffers))


async def _within(future: _Future, timeout_ms: float) -> Answer:
    """Wait for an answer, a little longer than the broker waits itself."""
    try:
        async with asyncio.timeout(timeout_ms / 1000 + LATE_S):
            answer: Answer = await future
            return answer
    except TimeoutError:
        raise late(timeout_ms) from None
