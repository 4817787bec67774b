"""The async client's connection to a broker.

Mirror: tests/client/test_aioremote.py.
"""

import asyncio
from math import inf
from time import monotonic, perf_counter
from typing import Any

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .connection import LATE_S, closed_error, late, unanswered
from .core import Completion
from .invocation import Params, check_pong, left_of, refused
from .sockets import Sockets
from .transport import Answer

_Future = asyncio.Future[Any]  # of an Answer


class AsyncRemoteTransport:
    """The connection of one client, made when it is first used.

    It is made anew where the client is used on another loop than before, one after the other, and
    in a forked child.
    """

    def __init__(self, endpoint: str, connect_timeout_s: float) -> None:
        self._endpoint = endpoint
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

    async def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        """Make a call and wait for its reply. Guarded by ``scripts/bench guard``."""
        connection = self._connection
        if connection is None or not (connection.is_checked or connection.check()):
            begun = monotonic()
            connection = await self._ready(timeout_ms)
            timeout_ms = left_of(timeout_ms, begun)
        future: _Future = connection.loop.create_future()
        request_id = connection.call(future, node, params, timeout_ms)
        try:
            answer: Answer = await (future if timeout_ms is None else _within(future, timeout_ms))
        except BaseException:
            connection.cancel(request_id)
            raise
        return answer

    async def chunk(self, node: str, items: bytes, timeout_ms: float | None) -> object:
        """Run a chunk of a map."""
        connection = self._connection
        if connection is None or not connection.check():
            begun = monotonic()
            connection = await self._ready(timeout_ms)
            timeout_ms = left_of(timeout_ms, begun)
        future: _Future = connection.loop.create_future()
        try:
            request_id = connection.chunk(future, node, items, timeout_ms)
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
        self._sockets = Sockets(self._endpoint)
        self._connection = AsyncConnection(
            self._sockets,
            client=CLIENT_NAME,
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
