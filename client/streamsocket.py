"""A connection over a stream, which stands beside an ipc endpoint. An IO shell.

Mirror: tests/client/test_streamsocket.py.
"""

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Sequence
from struct import pack
from weakref import WeakSet

from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
)
from pronghorn.broker.wire.limits import KIB
from pronghorn.broker.wire.link import (
    READ_BYTES_MAX,
    READ_BYTES_MIN,
    Buffer,
    FrameReader,
    next_stream_bytes,
)
from pronghorn.broker.wire.stream import FrameWriter, is_foreign

from .sockets import SOON_MS, Attached, not_connected

_DONTWAIT = int(socket.MSG_DONTWAIT)
_SMALL_BYTES = 16 * KIB  # a frame up to this is copied behind its length, for one plain write
_SOON = pack("ll", 0, SOON_MS * 1000)  # a struct timeval

_connected: "WeakSet[StreamSocket]" = WeakSet()  # to be closed in a forked child
_no_fork = threading.RLock()  # held by whoever has a connection that is not in there yet


class StreamSocket:
    """One connection; made by `connect`, and made anew by it after a loss."""

    def __init__(self, path: str, bell: int | None) -> None:
        self._path = path
        self._bell = bell
        self._socket: socket.socket | None = None  # None while there is no connection
        self._writer: FrameWriter | None = None  # its writing half
        self._reader = FrameReader()
        self._ask = READ_BYTES_MIN  # how much is read at once
        self._frames: deque[bytes] = deque()  # received, not yet handed out
        self._was_lost = False  # since `disconnected` was asked last
        self._attached: Attached | None = None

    def connect(self) -> bool:
        """Connect if need be; `False` if nobody listens.

        Raises:
            InvalidArgumentError: The path belongs to somebody else.
            OverloadedError: The system has no more sockets.
        """
        if self._socket is not None:
            return True
        with _no_fork:
            sock = _connected_to(self._path)
            if sock is None:
                return False
            self._socket, self._writer = sock, FrameWriter(sock)
            _connected.add(self)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SOON)
        self._reader, self._ask = FrameReader(), READ_BYTES_MIN
        self._frames.clear()
        self._watch()
        return True

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send frames; what the socket does not take waits for the next chance.

        Raises:
            BrokerLostError: There is no connection at the moment; nothing was sent.
        """
        writer = self._writer
        if writer is None or writer.is_broken:
            self._read_to_end()
            raise not_connected()
        frame = frames[0]
        if len(frames) == 1 and type(frame) is bytes and len(frame) <= _SMALL_BYTES:
            if writer.write(frame):
                return
        else:
            writer.put(frames)
            if writer.flush():
                return
        if not writer.is_broken:
            self._watch_writable()
            return
        self._read_to_end()
        if len(frames) == 1:  # the broker has no use for the part of it that may have left
            raise not_connected()

    def readable(self) -> bool:
        """Whether a frame was read already."""
        return bool(self._frames)

    def receive(self) -> bytes | None:
        """Receive one frame without waiting, `None` when there is none."""
        if self._frames:
            return self._frames.popleft()
        if self._socket is None:
            return None
        try:
            return self._take_in(self._socket.recv(self._ask, _DONTWAIT))
        except BlockingIOError:
            return None
        except OSError as error:
            if is_foreign(error):
                raise
            return self._take_in(b"")

    def receive_soon(self) -> bytes | None:
        """Receive one frame, waiting up to `SOON_MS` for it; `None` when none came."""
        if self._frames:
            return self._frames.popleft()
        if self._socket is None or self._writer is None or self._writer.pending_bytes:
            return None
        try:
            return self._take_in(self._socket.recv(self._ask))
        except BlockingIOError:
            return None
        except OSError as error:
            if is_foreign(error):
                raise
            return self._take_in(b"")

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a frame has come, the connection is lost, or the bell has rung."""
        if self._frames or self._was_lost:
            return True
        poll = select.poll()
        if self._bell is not None:
            poll.register(self._bell, select.POLLIN)
        if self._socket is not None and self._writer is not None:
            wanted = select.POLLIN | (select.POLLOUT if self._writer.pending_bytes else 0)
            poll.register(self._socket, wanted)
        ready = poll.poll(timeout_ms)
        if self._writer is not None:
            self._writer.flush()
        return bool(ready)

    def refusal(self) -> PermissionDeniedError | None:
        """Tell nothing: whoever can connect is let in."""
        return None

    def disconnected(self) -> bool:
        """Whether the connection was lost since this was asked last."""
        was_lost, self._was_lost = self._was_lost, False
        return was_lost

    def attach(self, attached: Attached) -> None:
        """Have an event loop call back when frames have come, or the connection is lost."""
        self._attached = attached
        self._watch()

    def detach(self) -> None:
        """Have the loop call back no more."""
        self._unwatch()
        self._attached = None

    def close(self) -> None:
        """Close it; what the socket took still arrives."""
        self.detach()
        if self._socket is not None:
            self._socket.close()
            self._socket = self._writer = None

    def leave_to_parent(self) -> None:
        """In a forked child: hold the connection open no longer than the parent does.

        The broker takes a client for gone when nobody has its connection open. The loop that it
        was attached to is the parent's too.
        """
        self._attached = None
        self.close()
        self._was_lost = True

    def _watch(self) -> None:
        if self._attached is not None and self._socket is not None:
            self._attached.loop.add_reader(self._socket.fileno(), self._attached.on_readable)

    def _watch_writable(self) -> None:
        if self._attached is not None and self._socket is not None:
            self._attached.loop.add_writer(self._socket.fileno(), self._on_writable)

    def _unwatch(self) -> None:
        if self._attached is None or self._socket is None or self._attached.loop.is_closed():
            return
        self._attached.loop.remove_reader(self._socket.fileno())
        self._attached.loop.remove_writer(self._socket.fileno())

    def _take_in(self, data: bytes) -> bytes | None:
        """Take in what was read; returns the first frame of it, keeps the others."""
        if not data:
            self._lose()
            return None
        frames = self._reader.feed(data)
        self._ask = next_stream_bytes(self._ask, len(data), self._reader.missing, frames)
        if len(frames) == 1:
            return frames[0]
        self._frames.extend(frames)
        return self._frames.popleft() if frames else None

    def _read_to_end(self) -> None:
        """Keep what the other end sent before it was gone, then close."""
        while self._socket is not None:
            try:
                data = self._socket.recv(READ_BYTES_MAX, _DONTWAIT)
            except OSError as error:
                if is_foreign(error):
                    raise
                data = b""
            if not data:
                self._lose()
                return
            self._frames.extend(self._reader.feed(data))

    def _lose(self) -> None:
        """Close a connection whose other end is gone; what it sent before was read."""
        assert self._socket is not None
        self._unwatch()
        self._socket.close()
        self._socket = self._writer = None
        self._was_lost = True
        if self._attached is not None:
            self._attached.loop.call_soon(self._attached.on_lost)

    def _on_writable(self) -> None:
        if self._writer is None or self._socket is None or self._attached is None:
            return
        if self._writer.flush() or self._writer.is_broken:  # its end is about to be read
            self._attached.loop.remove_writer(self._socket.fileno())


def _connected_to(path: str) -> socket.socket | None:
    """Make a connected socket; `None` if nobody listens."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        if is_foreign(error):
            raise
        raise OverloadedError(f"can't make a socket to the broker: {error}") from error
    try:
        sock.setblocking(False)  # or it would wait for room among those who connect
        sock.connect(path)
        sock.setblocking(True)
    except BaseException as error:
        sock.close()
        if is_foreign(error):
            raise
        if isinstance(error, PermissionError):
            raise InvalidArgumentError(f"can't connect to {path}: {error}") from error
        return None
    return sock


def _leave_to_parent() -> None:
    _no_fork.release()
    for each in list(_connected):
        each.leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_no_fork.acquire,
        after_in_parent=_no_fork.release,
        after_in_child=_leave_to_parent,
    )
