"""The sync client's connections to a broker: one for each thread, some for maps, one in background.

Mirror: tests/client/test_remote.py.
"""

import os
import threading
from collections.abc import Generator
from concurrent.futures import Future
from time import perf_counter
from typing import Any
from weakref import WeakSet

import zmq

from pronghorn.broker.wire.errors import BrokerLostError
from pronghorn.broker.wire.version import CLIENT_NAME

from .background import Background
from .connection import Connection, Waiter
from .invocation import Params, Target, check_pong
from .mapping import Chunk, MapPlan, Results
from .transport import Answer


class RemoteTransport:
    """All connections of one client."""

    def __init__(self, endpoint: str, connect_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Start without connections, when new or as the copy in a forked child."""
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards what follows, but for each thread's own
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._mine = threading.local()  # .connection: that of the calling thread
        self._connections: WeakSet[Connection] = WeakSet()  # all of them, to be closed
        self._spare: list[Connection] = []  # those of maps that have ended
        self._background: Background | None = None

    def connect(self) -> None:
        """Connect the calling thread."""
        self._my_connection()

    def call(self, node: str, params: Params, timeout_ms: float | None) -> Answer:
        """Make a call on the calling thread's connection."""
        waiter = self._my_connection().call(node, params, timeout_ms)
        return waiter.reply, waiter.buffers

    def submit(self, target: Target, params: Params, timeout_ms: float | None) -> "Future[Any]":
        """Hand a call to the I/O thread."""
        return self._io_thread().submit(target, params, timeout_ms)

    def map(self, plan: MapPlan, timeout_ms: float | None) -> Generator[Results, None, None]:
        """Carry out a plan on a connection of its own, so that any thread may iterate."""
        connection = self._take_spare()
        open_chunks: dict[Waiter, Chunk] = {}
        try:
            connection.refresh()
            while not plan.finished:
                for chunk in plan.next_chunks():
                    waiter = Waiter()
                    waiter.request_id = connection.core.chunk(
                        waiter, plan.node, chunk.body, timeout_ms
                    )
                    open_chunks[waiter] = chunk
                    connection.flush()  # the first runs while the next is encoded
                if open_chunks and not any(waiter.reply for waiter in open_chunks):
                    connection.turn(None)
                for waiter in [one for one in open_chunks if one.reply is not None]:
                    plan.replied(open_chunks.pop(waiter), waiter.reply)
                yield from plan.results()
        finally:
            for waiter in open_chunks:
                connection.core.cancel(waiter.request_id)
            connection.flush()
            self._give_spare(connection)

    def ping(self, timeout_s: float) -> float:
        """Return the seconds of one round trip to the broker itself."""
        connection = self._my_connection()
        begun = perf_counter()
        check_pong(connection.ping(timeout_s).reply)
        return perf_counter() - begun

    def close(self) -> None:
        """Close all connections, those of other threads too."""
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
            self._endpoint,
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
                    self._endpoint, connect_timeout_s=self._connect_timeout_s
                )
            return self._background
