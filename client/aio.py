"""The client for asyncio and uvloop.

Mirror: tests/client/test_aio.py.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

import msgspec
import zmq

from pronghorn.broker.wire.errors import BrokerLostError, PronghornError
from pronghorn.broker.wire.places import default_endpoint
from pronghorn.broker.wire.values import NodeDescription
from pronghorn.broker.wire.version import CLIENT_NAME

from .aioconnection import AsyncConnection
from .connection import LATE_S, late
from .core import Completion
from .invocation import (
    LIST_NODES,
    NodeLike,
    check_pong,
    encode_arguments,
    result_of,
    take_options,
    target_of,
    timeout_ms_of,
)
from .mapping import Chunk, MapPlan

P = ParamSpec("P")
R = TypeVar("R")

_Future = asyncio.Future[Any]  # of a Completion


class AsyncClient:
    """A client of one broker, for one event loop.

    Connects when it is first used, or by ``async with``. Many calls may be open at once; those made
    within one turn of the loop leave as one message. Cancelling an awaiting task cancels its call.

    Args:
        endpoint: Where the broker is; by default what ``PRONGHORN_ENDPOINT`` says, else the default
            runtime folder's.
        connect_timeout_s: How long to wait for a broker to answer.
    """

    def __init__(self, endpoint: str | None = None, *, connect_timeout_s: float = 5.0) -> None:
        self.endpoint = endpoint or default_endpoint()
        self._connect_timeout_s = connect_timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._connection: AsyncConnection[_Future] | None = None
        self._closed = False

    @overload
    async def call(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any: ...
    async def call(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Any:
        """Run a node and return its result.

        Args:
            node: Its name, or the decorated function, whose types the result then has.
            *args: Its arguments by position; by position or by name, not both, if `node` is a name.
            **kwargs: Its arguments by name, and these options: ``timeout_s``, seconds until the
                call is given up, no limit by default; ``params``, the arguments by name as a
                mapping, for a node whose parameters have the names of options.

        Raises:
            PronghornError: One of its subclasses; `outcome` says whether the node ran.
        """
        target = target_of(node)
        timeout_s, params = take_options(kwargs)
        encoded = encode_arguments(target, args, kwargs, params)
        timeout_ms = timeout_ms_of(timeout_s)
        connection = self._connection
        if connection is None or connection.core.info is None:
            connection = await self._ready()
        future: _Future = asyncio.get_running_loop().create_future()
        request_id = connection.call(future, target.name, encoded, timeout_ms)
        try:
            if timeout_ms is None:
                completion = await future
            else:
                completion = await _within(future, timeout_ms)
        except BaseException:
            connection.cancel(request_id)
            raise
        return result_of(target, completion.reply, completion.buffers)

    async def map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
        chunk_size: int | None = None,
    ) -> AsyncIterator[Any]:
        """Run a node for each item on all workers; an async iterator over the results.

        Args:
            node: Its name, or the decorated function.
            items: Params of each run: dicts (by name), or tuples or lists (by position). Taken as
                needed, so they may be endless.
            ordered: Give results in the order of the items; else as they come.
            return_exceptions: Give a failed item's exception in its place instead of raising it.
            timeout_s: Seconds that each chunk may take.
            chunk_size: Items per message; by default so many as run for some milliseconds.

        Raises:
            PronghornError: That of the first failed item, unless `return_exceptions`.
        """
        target = target_of(node)
        plan = MapPlan(
            target.name,
            items,
            ordered=ordered,
            chunk_size=chunk_size,
            result_type=target.result_type,
        )
        timeout_ms = timeout_ms_of(timeout_s)
        connection = await self._ready()
        open_chunks: dict[_Future, tuple[Chunk, int]] = {}
        try:
            while not plan.finished:
                for chunk in plan.next_chunks():
                    future: _Future = asyncio.get_running_loop().create_future()
                    request_id = connection.chunk(future, target.name, chunk.body, timeout_ms)
                    open_chunks[future] = (chunk, request_id)
                if open_chunks:
                    done, _ = await asyncio.wait(open_chunks, return_when=asyncio.FIRST_COMPLETED)
                    for future in done:
                        plan.replied(open_chunks.pop(future)[0], future.result().reply)
                for values in plan.results():
                    for value in values:
                        if not return_exceptions and isinstance(value, PronghornError):
                            raise value
                        yield value
        finally:
            for future, (_, request_id) in open_chunks.items():
                future.cancel()
                connection.cancel(request_id)

    async def nodes(self) -> list[NodeDescription]:
        """List the nodes that the broker serves, with their signatures and JSON Schemas."""
        return list(msgspec.convert(await self.call(LIST_NODES), list[NodeDescription]))

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Return the seconds of one round trip to the broker itself."""
        connection = await self._ready()
        future: _Future = asyncio.get_running_loop().create_future()
        begun = perf_counter()
        connection.ping(future)
        completion = await _within(future, timeout_s * 1000)
        check_pong(completion.reply)
        return perf_counter() - begun

    async def aclose(self) -> None:
        """Close the connection; open calls end with `BrokerLostError`."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._context is not None:
            self._context.term()
            self._context = None

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _ready(self) -> AsyncConnection[_Future]:
        """Return the connection once the broker has welcomed it; make it first if need be."""
        if self._closed:
            raise BrokerLostError("the client is closed")
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            self._context = zmq.Context()
            connection = self._connection = AsyncConnection(
                self._context,
                self.endpoint,
                client=CLIENT_NAME,
                connect_timeout_s=self._connect_timeout_s,
                deliver=_deliver,
            )
        if connection.core.info is None:
            await connection.ready()
        return connection


def _deliver(completion: "Completion[_Future]") -> None:
    if not completion.handle.done():
        completion.handle.set_result(completion)


async def _within(future: _Future, timeout_ms: float) -> "Completion[_Future]":
    """Wait for a completion, a little longer than the broker waits itself."""
    try:
        async with asyncio.timeout(timeout_ms / 1000 + LATE_S):
            completion: Completion[_Future] = await future
            return completion
    except TimeoutError:
        raise late(timeout_ms) from None
