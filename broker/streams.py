"""The broker's streams: plain AF_UNIX connections of clients on this host. An IO shell.

A stream stands beside each ipc endpoint and carries the same frames without ZeroMQ in between,
which spares two threads and their wake-ups at each end (half of a call's time: ``scripts/bench
rtt``), and tells at once when its client is gone.

Mirror: tests/broker/test_streams.py.
"""

import errno
import os
import secrets
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path
from struct import Struct as Layout
from time import monotonic

from .events import Event
from .ingress import Ingress, StreamParser
from .poller import Poller
from .wire.errors import InvalidArgumentError
from .wire.limits import MIB, Limits
from .wire.link import READ_BYTES_MIN, FrameReader, StreamError, next_stream_bytes
from .wire.statistics import SlowPeer
from .wire.stream import FrameWriter

SLOW_BYTES_MIN = 1 * MIB
"""Unread bytes from which on dropping a client helps the broker's memory."""

EVENTS_PER_VISIT = 16
"""Most requests of one client that are taken in before others get their turn: 0.2 ms of them. What
else it has sent at once waits, parsed, for its next turn."""

EVENTS_ALONE = 64
"""The same of a client that is the only one: so many together cost a fifth less CPU time each, and
workers do not wait for them (with 256 they do: ``scripts/bench throughput``). Another one's first
call waits up to 0.8 ms for them."""

ALONE_S = 2.0
"""A client is the only one when no other was heard for so long."""

SLOW_PEERS_MAX = 10  # told of by `Streams.unread`

_BACKLOG = 4096  # connects of that many clients at once do not have to wait
_ACCEPTS_PER_TURN = 64
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_UCRED = Layout("iII")  # pid, uid, gid
_LINGER_S = 0.1  # what was not written at shutdown gets so long to leave


class Stream(FrameWriter):
    """One client's connection."""

    __slots__ = (
        "_ask",
        "_parser",
        "_reader",
        "_recv",
        "alive",
        "peer",
        "rest",
        "waits_to_write",
    )

    def __init__(self, sock: socket.socket, peer: bytes, ingress: Ingress, limits: Limits) -> None:
        super().__init__(sock)
        self.peer = peer  # stands for it where a ZeroMQ client's routing id would
        self.alive = True  # until it was read to its end, has to go, or was dropped
        self.waits_to_write = False  # whether the poll tells when it can be written to
        self._recv = sock.recv
        self._reader = FrameReader(limits.socket_message_bytes)
        self._parser = StreamParser(ingress, peer, limits)
        self._ask = READ_BYTES_MIN  # how much is read at once: little, unless frames are large
        self.rest: Sequence[Event] = ()  # parsed, and not taken in yet

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def receive(self) -> Sequence[Event]:
        """Read once and parse; gives up to `EVENTS_PER_VISIT` events, and keeps the `rest`.

        To be called when there is none. `alive` tells whether there can be more.
        """
        if not self.alive:
            return ()
        try:
            data = self._recv(self._ask)
        except BlockingIOError:
            return ()
        except OSError:
            data = b""
        if not data:
            self.alive = False
            return ()
        try:
            frames = self._reader.feed(data)
            self._ask = next_stream_bytes(self._ask, len(data), self._reader.missing, frames)
            events = self._parser.parse(frames)
        except StreamError:
            self.alive = False
            return ()
        if len(events) <= EVENTS_PER_VISIT:
            return events
        self.rest = events[EVENTS_PER_VISIT:]
        return events[:EVENTS_PER_VISIT]

    def take(self, most: int) -> Sequence[Event]:
        """Give up to so many events of the `rest`."""
        events, self.rest = self.rest[:most], self.rest[most:]
        return events

    def seen(self) -> SlowPeer:
        """Tell whose connection this is, and how much of what is written to it is unread."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(credentials)
        return SlowPeer(pid, self.pending_bytes, self.pending_frames)

    def close(self) -> None:
        """Close the connection."""
        self.rest = ()
        self._socket.close()


class Visitors:
    """Tells how much of what a client has sent is taken in before others get their turn."""

    __slots__ = ("_others_at", "last")

    def __init__(self) -> None:
        self.last: Stream | None = None  # who was heard last, as long as it is there
        self._others_at = -inf  # when somebody was heard after another

    def heard(self, stream: Stream, now: float) -> None:
        """Note that a client is heard who is not the `last` one."""
        self._others_at = -inf if self.last is None else now
        self.last = stream

    def heard_others(self, now: float) -> None:
        """Note that clients are heard who have no streams."""
        self._others_at = now

    def left(self, stream: Stream) -> None:
        """Note that a client is gone."""
        if stream is self.last:
            self.last = None

    def events_max(self, now: float) -> int:
        """Tell how much of one client's is taken in at once."""
        return EVENTS_ALONE if now - self._others_at > ALONE_S else EVENTS_PER_VISIT


class Listener:
    """Accepts streams at one path.

    Raises:
        InvalidArgumentError: The path can't be bound.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        umask = os.umask(0o177)  # the file gets its rights from it
        try:
            # Of an earlier broker that was killed: whoever starts one holds the lock of the place.
            if self._path.is_socket():
                self._path.unlink()
            self._socket.bind(path)
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise InvalidArgumentError(f"can't listen at {path}: {error}") from error
        finally:
            os.umask(umask)
        # Given up for a moment when there are no descriptors left, to turn a client away.
        self._reserve: int | None = _open_reserve()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def accept(self) -> list[socket.socket]:
        """Accept those who wait, some at a time; without descriptors left they are turned away."""
        accepted: list[socket.socket] = []
        while len(accepted) < _ACCEPTS_PER_TURN:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:  # most likely there is nobody else
                if error.errno in _NO_DESCRIPTORS:
                    self._turn_away()
                break
            connection.setblocking(False)
            accepted.append(connection)
        return accepted

    def close(self) -> None:
        """Stop listening and remove the file."""
        self._socket.close()
        if self._reserve is not None:
            os.close(self._reserve)
        self._path.unlink(missing_ok=True)

    def _turn_away(self) -> None:
        """Close the connection of one who waits, who would wait for ever otherwise."""
        if self._reserve is not None:
            os.close(self._reserve)
        with suppress(OSError):  # somebody else took the descriptor
            self._socket.accept()[0].close()
        self._reserve = _open_reserve()


class Streams:
    """All streams of a broker: accepted, written to, dropped.

    Args:
        paths: Where to listen.
        limits: Towards clients.
        unread_bytes: Most bytes of replies that a client has not read.
        ingress: Parses what they send.
        poller: Told of all descriptors.
        accepted: Called with each new stream.
        read: Called with a stream that may be readable, or is not `alive` any more.
    """

    def __init__(
        self,
        paths: Iterable[str],
        *,
        limits: Limits,
        unread_bytes: int,
        ingress: Ingress,
        poller: Poller,
        accepted: Callable[[Stream], None],
        read: Callable[[Stream], None],
    ) -> None:
        self._limits = limits
        self._unread_bytes = unread_bytes
        self._ingress = ingress
        self._poller = poller
        self._on_accepted = accepted
        self._read = read
        # Of what stands for clients; it must not be guessed by one that gives itself a routing id.
        self.prefix = secrets.token_bytes(8)
        self._accepted = 0
        self.by_peer: dict[bytes, Stream] = {}  # what the core knows it by -> stream, until dropped
        self._listeners: list[Listener] = []
        try:
            for path in paths:
                self._listeners.append(Listener(path))
        except InvalidArgumentError:
            self.close()
            raise

    def open(self) -> None:
        """Begin to accept clients."""
        for listener in self._listeners:
            self._poller.watch(listener.fileno(), partial(self._accept, listener))

    def write(self, stream: Stream, frame: bytes) -> bool:
        """Write one frame; as `flush`. Guarded by ``scripts/bench guard``."""
        return stream.write(frame) or self._keep(stream)

    def flush(self, stream: Stream) -> bool:
        """Write what was put; `False` if the client is gone or has to go."""
        if stream.waits_to_write:  # behind all that does: to try each time would cost too much
            return self._keep(stream)
        return stream.flush() or self._keep(stream)

    def unread(self) -> tuple[int, tuple[SlowPeer, ...]]:
        """Tell how many bytes clients leave unread, and who leaves most of them."""
        behind = [stream for stream in self.by_peer.values() if stream.pending_bytes]
        behind.sort(key=attrgetter("pending_bytes"), reverse=True)
        total = sum(stream.pending_bytes for stream in behind)
        return total, tuple(stream.seen() for stream in behind[:SLOW_PEERS_MAX])

    def drop(self, stream: Stream) -> None:
        """Close a stream that is gone or has to go."""
        if self.by_peer.pop(stream.peer, None) is not None:
            stream.alive = False
            self._poller.unwatch(stream.fileno())
            stream.close()

    def slowest(self) -> Stream | None:
        """Return the stream with the most that its client has not read, if that is much."""
        slowest = max(self.by_peer.values(), key=lambda one: one.pending_bytes, default=None)
        if slowest is None or slowest.pending_bytes < SLOW_BYTES_MIN:
            return None
        return slowest

    def close_all(self) -> None:
        """Close all streams; what their clients have not read gets a moment to leave."""
        unsent = {
            stream.fileno(): stream
            for stream in self.by_peer.values()
            if not stream.flush() and not stream.is_broken
        }
        poll = select.poll()
        for fd in unsent:
            poll.register(fd, select.POLLOUT)
        until = monotonic() + _LINGER_S
        while unsent and (left := until - monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if unsent[fd].flush() or unsent[fd].is_broken:
                    poll.unregister(fd)
                    del unsent[fd]
        for stream in self.by_peer.values():
            stream.close()
        self.by_peer.clear()

    def close(self) -> None:
        """Stop listening and remove the files."""
        while self._listeners:
            self._listeners.pop().close()

    def _accept(self, listener: Listener) -> None:
        for connection in listener.accept():
            self._accepted += 1
            peer = self.prefix + self._accepted.to_bytes(8, "big")
            stream = Stream(connection, peer, self._ingress, self._limits)
            self.by_peer[peer] = stream
            self._poller.watch(stream.fileno(), partial(self._read, stream))
            self._on_accepted(stream)

    def _keep(self, stream: Stream) -> bool:
        """Have the poll tell when there is room for what is pending."""
        if stream.is_broken:
            return False
        if not stream.waits_to_write:
            stream.waits_to_write = True
            self._poller.watch_both(stream.fileno(), partial(self._write_and_read, stream))
        return (
            stream.pending_frames <= self._limits.socket_high_water_mark
            and stream.pending_bytes <= self._unread_bytes
        )

    def _write_and_read(self, stream: Stream) -> None:
        if stream.flush():
            stream.waits_to_write = False
            self._poller.watch_reads(stream.fileno(), partial(self._read, stream))
        elif stream.is_broken:
            stream.alive = False
        self._read(stream)


def _open_reserve() -> int | None:
    with suppress(OSError):
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return None
