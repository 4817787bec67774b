"""The async client's connection to a broker.

Mirror: tests/client/test_aioremote.py.
"""

import asyncio
import os
from time import perf_counter
from typing import Any

import zmq

from pronghorn.broker.wire.errors import BrokerLostError
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .connection import LATE_S, late
from .core import Completion
from .invocation import Params, check_pong
from .transport import Answer

_Future = asyncio.Future[Any]  # of an Answer


class AsyncRemoteTransport:
    """The connection of one client, made when it is first used."""

    def __init__(self, endpoint: str, connect_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._connection: AsyncConnection[_Future] | None = None
        self._closed = False

    async def connect(self) -> None:
        """Wait for the broker's welcome."""
        await self._ready()

    async def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        """Make a call and wait for its reply. Guarded by ``scripts/bench guard``."""
        connection = self._connection
        if connection is None or connection.core.info is None:
            connection = await self._ready()
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
        connection = await self._ready()
        future: _Future = connection.loop.create_future()
        request_id = connection.chunk(future, node, items, timeout_ms)
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
        check_pong((await _within(future, timeout_s * 1000))[0])
        return perf_counter() - begun

    async def close(self) -> None:
        """Close the connection; open calls end with `BrokerLostError`."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._context is not None:
            self._context.term()
            self._context = None

    async def _ready(self) -> AsyncConnection[_Future]:
        """Return the connection once the broker has welcomed it; make it first if need be."""
        if self._closed:
            raise BrokerLostError("the client is closed")
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            self._context = zmq.Context()
            connection = self._connection = AsyncConnection(
                self._context,
                self._endpoint,
                client=CLIENT_NAME,
                connect_timeout_s=self._connect_timeout_s,
                deliver=_deliver,
            )
        if connection.core.info is None:
            await connection.ready()
        return connection


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
