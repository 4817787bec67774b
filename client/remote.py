"""The sync client's connections to a broker: one for each thread, some for maps, one in background.

Mirror: tests/client/test_remote.py.
"""

import os
import socket
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakSet, finalize, ref

from pronghorn.broker.wire.errors import BrokerLostError
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.version import CLIENT_NAME

from .connection import LATE_S, Connection, Waiter, closed_error, late
from .inbox import Inbox, OnEvent, told
from .invocation import Params, Target, check_pong
from .mapping import Chunk, MapPlan
from .results import Results
from .sockets import Sockets
from .stopwatch import Extras
from .streaming import Arrival
from .transport import Answer

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

    from .background import Background


class RemoteTransport:
    """All connections of one client, in each process that has it."""

    def __init__(
        self, endpoint: str, connect_timeout_s: float, key: "PrivateKey | None" = None
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._connect_timeout_s = connect_timeout_s
        self._closed = False
        # pid -> what that process has open; after a fork the parent's is left alone
        self._processes: dict[int, _Connections] = {}
        # For who forgets to close. At exit that is, while all threads still run: later a lock may
        # be held by a daemon thread that does not live any more.
        finalize(self, _end_here, self._processes, ref(self))

    def connect(self) -> None:
        """Connect the calling thread; if that fails, leave nothing open."""
        try:
            self._my_connection().connect()
        except BaseException:
            here = self._processes.pop(os.getpid(), None)
            if here is not None:
                here.close()
            raise

    def call(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Answer:
        """Make a call on the calling thread's connection."""
        connection = self._my_connection()
        if connection.uses:
            with self._free_connection() as connection:
                waiter = connection.call(node, params, timeout_ms, extras)
        else:
            waiter = connection.call(node, params, timeout_ms, extras)
        return waiter.reply, waiter.buffers

    def submit(
        self,
        target: Target,
        params: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None = None,
        extras: Extras | None = None,
    ) -> "Future[Any]":
        """Hand a call to the I/O thread."""
        return self._here().background().submit(target, params, timeout_ms, on_event, extras)

    def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> "_RemoteArrivals":
        """Make a call on a connection of its own, so that any thread may take what comes."""
        here = self._here()
        connection = here.take_spare()
        inbox = Inbox(parts=parts, events=on_event is not None)
        try:
            waiter = connection.open_stream(node, params, timeout_ms, inbox, extras)
        except BaseException:
            here.give_spare(connection)
            raise
        return _RemoteArrivals(here, connection, waiter, inbox, timeout_ms, on_event)

    def map(
        self, plan: MapPlan, timeout_ms: float | None, extras: Extras | None = None
    ) -> Generator[Results, None, None]:
        """Carry out a plan on a connection of its own, so that any thread may iterate."""
        here = self._here()
        connection = here.take_spare()
        open_chunks: dict[Waiter, Chunk] = {}
        end: BrokerLostError | None = None  # why no more chunks can be sent
        try:
            connection.connect()
            while not plan.finished and end is None:
                try:
                    for chunk in plan.next_chunks():  # the first runs while the next is encoded
                        waiter = connection.open_chunk(plan.node, chunk.body, timeout_ms, extras)
                        open_chunks[waiter] = chunk
                    if open_chunks:
                        connection.wait_for_any(open_chunks)
                except BrokerLostError as error:
                    end = error  # but first what became of those that were sent
                for waiter in [one for one in open_chunks if one.reply is not None]:
                    plan.replied(open_chunks.pop(waiter), waiter.reply)
                yield from plan.results()
            if end is not None:
                raise end
        finally:
            end = None  # or it and this frame would keep each other
            connection.cancel(open_chunks)
            here.give_spare(connection)

    def ping(self, timeout_s: float) -> float:
        """Return the seconds of one round trip to the broker itself."""
        with self._free_connection() as connection:
            connection.connect()
            begun = perf_counter()
            check_pong(connection.ping(timeout_s).reply)
            return perf_counter() - begun

    def close(self) -> None:
        """Close all connections, those of other threads too, whose calls end at once."""
        self._closed = True
        here = self._processes.get(os.getpid())
        if here is not None:
            here.close()

    @contextmanager
    def _free_connection(self) -> Iterator[Connection]:
        """Give the calling thread's connection, or another one within a call that is on that.

        Which is so in a signal handler or finalizer, that has interrupted the call anywhere.
        """
        connection = self._my_connection()
        if not connection.uses:
            yield connection
            return
        here = self._here()
        connection = here.take_spare()
        try:
            yield connection
        finally:
            here.give_spare(connection)

    def _my_connection(self) -> Connection:
        """Return the calling thread's connection. Guarded by ``scripts/bench guard``."""
        here = self._processes.get(os.getpid()) or self._here()
        connection: Connection | None = getattr(here.mine, "connection", None)
        if connection is None or connection.closing:
            connection = here.mine.connection = here.connect(of_thread=True)
        return connection

    def _here(self) -> "_Connections":
        """Return what this process has open."""
        here = self._processes.get(os.getpid())
        if here is None:
            if self._closed:
                raise closed_error("not_started")
            new = _Connections(self._endpoint, self._connect_timeout_s, self._key)
            here = self._processes.setdefault(os.getpid(), new)
        return here


class _RemoteArrivals:
    """What comes of one call, on a connection of its own; see `Arrivals`."""

    def __init__(
        self,
        here: "_Connections",
        connection: Connection,
        waiter: Waiter,
        inbox: Inbox,
        timeout_ms: float | None,
        on_event: OnEvent | None,
    ) -> None:
        self._here = here
        self._connection: Connection | None = connection  # None once it was given back
        self._waiter = waiter
        self._inbox = inbox
        self._timeout_ms = timeout_ms
        self._due = None if timeout_ms is None else monotonic() + timeout_ms / 1000 + LATE_S
        self._on_event = on_event

    def take(self) -> Arrival | None:
        """Give the next part, or the reply behind the last; tell the events before it."""
        inbox = self._inbox
        while (taken := inbox.take()) is not None:
            owed = inbox.owed()
            if owed is not None and self._connection is not None and self._waiter.reply is None:
                self._connection.give_credit(self._waiter.request_id, owed)
            message, buffers = taken
            if isinstance(message, Part):
                return message, buffers
            if self._on_event is not None:
                self._on_event(told(message))
        if self._waiter.reply is None:
            return None
        return self._waiter.reply, self._waiter.buffers

    def wait(self) -> None:
        """Wait until there is one.

        Raises:
            DeadlineExceededError: The broker said nothing for `LATE_S` after the deadline.
        """
        assert self._connection is not None
        if not self._connection.wait_for_news(self._waiter, self._inbox, self._due):
            raise late(self._timeout_ms)

    def close(self) -> None:
        """Cancel the call unless it has ended, and give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._waiter.reply is None:
                connection.cancel((self._waiter,))
            self._here.give_spare(connection)


class _Connections:
    """What a client has open in one process. Costs nothing until it is used."""

    def __init__(self, endpoint: str, connect_timeout_s: float, key: "PrivateKey | None") -> None:
        self._sockets = Sockets(endpoint, key)
        self._connect_timeout_s = connect_timeout_s
        self.mine = threading.local()  # .connection: that of the calling thread
        # Guards what follows. Reentrant, as the collector may close a connection at any time.
        self._lock = threading.RLock()
        self._closed = False
        # To be closed; a thread's ends with the thread.
        self._of_threads: WeakSet[Connection] = WeakSet()
        self._others: WeakSet[Connection] = WeakSet()
        self._spare: list[Connection] = []  # of the others, those that nobody uses
        self._background: Background | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None  # one end hears the other
        self._users = 1  # of sockets and bell: the open connections, and this as long as it is open

    def connect(self, *, of_thread: bool) -> Connection:
        """Make a connection, that of the calling thread or another one."""
        with self._lock:
            if self._closed:
                raise closed_error("not_started")
            if self._bell is None:
                self._bell = socket.socketpair()
            connection = Connection(
                self._sockets,
                client=CLIENT_NAME,
                connect_timeout_s=self._connect_timeout_s,
                bell=self._bell[0].fileno(),
                closed=self._let_go,
            )
            self._users += 1
            (self._of_threads if of_thread else self._others).add(connection)
            return connection

    def take_spare(self) -> Connection:
        """Return a connection that nobody uses."""
        with self._lock:
            return self._spare.pop() if self._spare else self.connect(of_thread=False)

    def give_spare(self, connection: Connection) -> None:
        """Take back a connection that is used no more."""
        with self._lock:
            if not connection.closing:
                self._spare.append(connection)

    def background(self) -> "Background":
        """Return the I/O thread."""
        with self._lock:
            if self._closed:
                raise closed_error("not_started")
            if self._background is None or self._background.has_ended:
                # Most programs never submit, so they never import asyncio for it either.
                from .background import Background

                self._background = Background(
                    self._sockets.endpoint,
                    connect_timeout_s=self._connect_timeout_s,
                    key=self._sockets.key,
                )
            return self._background

    def close(self) -> None:
        """Close all; what is in use is closed by its users, who give up what they wait for."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = [*self._of_threads, *self._others]
        self._spare.clear()
        for connection in connections:
            connection.close()
        if self._bell is not None:
            self._bell[1].shutdown(socket.SHUT_RDWR)  # closing would not do after a fork
        if self._background is not None:
            self._background.close()
        self._let_go()

    def leave(self) -> None:
        """Close at exit what is not in use.

        The connections of daemon threads, which run on and are about to be frozen, are left to the
        system: they would end with errors that nobody can handle any more, in the midst of all.
        """
        mine: Connection | None = getattr(self.mine, "connection", None)
        with self._lock:
            connections = [*self._others] if mine is None else [mine, *self._others]
        for connection in connections:
            if not connection.uses:
                connection.close()
        if self._background is not None:
            self._background.close()

    def _let_go(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._sockets.close()
        if self._bell is not None:
            for end in self._bell:
                end.close()


def _end_here(
    processes: dict[int, _Connections], transport: "ReferenceType[RemoteTransport]"
) -> None:
    """Close what this process has of a client that was forgotten, or not closed before the exit."""
    here = processes.get(os.getpid())
    if here is not None:
        if transport() is None:
            here.close()
        else:
            here.leave()
