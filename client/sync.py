"""The client for programs without an event loop.

Mirror: tests/client/test_sync.py.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from time import perf_counter
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

import msgspec
import zmq

from pronghorn.broker.wire.errors import BrokerLostError, PronghornError
from pronghorn.broker.wire.places import default_endpoint
from pronghorn.broker.wire.values import NodeDescription
from pronghorn.broker.wire.version import CLIENT_NAME

from .background import Background
from .connection import Connection, Waiter
from .executor import NodeExecutor
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


class Client:
    """A client of one broker, for any number of threads.

    `call` blocks on a connection of the calling thread; the first `submit` or `executor` starts the
    one I/O thread. Connects when it is first used, or by ``with``. After a fork the child's copy
    makes connections of its own.

    Args:
        endpoint: Where the broker is; by default what ``PRONGHORN_ENDPOINT`` says, else the default
            runtime folder's.
        connect_timeout_s: How long to wait for a broker to answer.
    """

    def __init__(self, endpoint: str | None = None, *, connect_timeout_s: float = 5.0) -> None:
        self.endpoint = endpoint or default_endpoint()
        self._connect_timeout_s = connect_timeout_s
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Start without connections, as a new client or as the copy in a forked child."""
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards what follows, but for each thread's own
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._mine = threading.local()  # .connection: that of the calling thread
        self._connections: WeakSet[Connection] = WeakSet()  # all of them, to be closed
        self._spare: list[Connection] = []  # those of maps that have ended
        self._background: Background | None = None

    @overload
    def call(self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def call(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Any:
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
        waiter = self._my_connection().call(target.name, encoded, timeout_ms_of(timeout_s))
        return result_of(target, waiter.reply, waiter.buffers)

    @overload
    def submit(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    @overload
    def submit(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    @overload
    def submit(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Future[Any]: ...
    def submit(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call and return its future; arguments as in `call`.

        Cancelling the future cancels the call. Callbacks run on the I/O thread.
        """
        target = target_of(node)
        timeout_s, params = take_options(kwargs)
        encoded = encode_arguments(target, args, kwargs, params)
        return self._io_thread().submit(target, encoded, timeout_ms_of(timeout_s))

    def map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
        chunk_size: int | None = None,
    ) -> Iterator[Any]:
        """Run a node for each item on all workers; an iterator over the results as they come.

        Nothing is sent before the first result is asked for; leaving the iterator cancels the rest.

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
        return self._map(target.name, plan, return_exceptions, timeout_ms_of(timeout_s))

    def nodes(self) -> list[NodeDescription]:
        """List the nodes that the broker serves, with their signatures and JSON Schemas."""
        return msgspec.convert(self.call(LIST_NODES), list[NodeDescription])

    def ping(self, timeout_s: float = 5.0) -> float:
        """Return the seconds of one round trip to the broker itself."""
        connection = self._my_connection()
        begun = perf_counter()
        check_pong(connection.ping(timeout_s).reply)
        return perf_counter() - begun

    def executor(self) -> Executor:
        """Return a `concurrent.futures.Executor` that runs functions of served modules."""
        return NodeExecutor(self)

    def close(self) -> None:
        """Close all connections; open calls end with `BrokerLostError`."""
        self._closed = True
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._background is not None:
                self._background.close()
                self._background = None
            for connection in list(self._connections):
                connection.close()
            self._connections.clear()
            self._spare.clear()
            if self._context is not None:
                self._context.term()
                self._context = None

    def __enter__(self) -> Self:
        self._my_connection()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _map(
        self, node: str, plan: MapPlan, return_exceptions: bool, timeout_ms: float | None
    ) -> Iterator[Any]:
        connection = self._take_spare()
        open_chunks: dict[Waiter, Chunk] = {}
        try:
            connection.refresh()
            while not plan.finished:
                for chunk in plan.next_chunks():
                    waiter = Waiter()
                    waiter.request_id = connection.core.chunk(waiter, node, chunk.body, timeout_ms)
                    open_chunks[waiter] = chunk
                    connection.flush()  # the first runs while the next is encoded
                if open_chunks and not any(waiter.reply for waiter in open_chunks):
                    connection.turn(None)
                for waiter in [one for one in open_chunks if one.reply is not None]:
                    plan.replied(open_chunks.pop(waiter), waiter.reply)
                for values in plan.results():
                    if return_exceptions or not any(
                        isinstance(value, PronghornError) for value in values
                    ):
                        yield from values
                        continue
                    for value in values:
                        if isinstance(value, PronghornError):
                            raise value
                        yield value
        finally:
            for waiter in open_chunks:
                connection.core.cancel(waiter.request_id)
            connection.flush()
            self._give_spare(connection)

    def _my_connection(self) -> Connection:
        """Return the calling thread's connection. Guarded by ``scripts/bench guard``."""
        if self._pid != os.getpid():
            self._begin()
        connection: Connection | None = getattr(self._mine, "connection", None)
        if connection is None or self._closed:
            connection = self._mine.connection = self._connect()
        return connection

    def _take_spare(self) -> Connection:
        """Return a connection that nobody uses, for a map: it may be iterated in any thread."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._spare and not self._closed:
                return self._spare.pop()
        return self._connect()

    def _give_spare(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed and connection.pid == os.getpid():
                self._spare.append(connection)

    def _connect(self) -> Connection:
        with self._lock:
            if self._closed:
                raise BrokerLostError("the client is closed")
            if self._context is None:
                self._context = zmq.Context()
            context = self._context
        connection = Connection(
            context,
            self.endpoint,
            client=CLIENT_NAME,
            connect_timeout_s=self._connect_timeout_s,
        )
        with self._lock:
            self._connections.add(connection)
        return connection

    def _io_thread(self) -> Background:
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._closed:
                raise BrokerLostError("the client is closed")
            if self._background is None:
                self._background = Background(
                    self.endpoint, connect_timeout_s=self._connect_timeout_s
                )
            return self._background
