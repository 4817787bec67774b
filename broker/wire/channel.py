"""Control channels: messages with file descriptors over an AF_UNIX stream. An IO shell.

Used by host, supervisor, broker and template; none of them sends much, so a write blocks when the
reader is behind.

Mirror: tests/broker/wire/test_channel.py.
"""

import os
import socket
from collections import deque
from itertools import chain
from typing import Self

from .control import DESCRIPTORS, ControlMessage, decode_control, encode_control
from .link import LENGTH, FrameReader

_READ_BYTES = 65536
_DESCRIPTORS_MAX = 64  # of one read; the kernel never joins more than one message with descriptors

GONE = (BrokenPipeError, ConnectionResetError)
"""Errors of a write that say that the other end is gone; all others, that the system lacks what it
takes, such as memory."""


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel or link."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class ControlChannel:
    """One end of a control channel; owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frames = FrameReader()
        # One entry for each message whose descriptors have come and that itself is not yet whole.
        self._descriptors: deque[tuple[int, ...]] = deque()

    @classmethod
    def inherited(cls, descriptor: int) -> Self:
        """Take over the end that this process was started with; its own children get no copy."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def send(self, message: ControlMessage, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; the descriptors are duplicated, the caller keeps its own.

        Raises:
            BrokenPipeError: The other end is gone.
            ConnectionResetError: It is gone and had not read everything.
            OSError: The system lacks what it takes; of a message with descriptors nothing was sent.
        """
        assert len(descriptors) == DESCRIPTORS.get(type(message), 0)
        body = encode_control(message)
        frame = LENGTH.pack(len(body)) + body
        if not descriptors:
            self._socket.sendall(frame)
            return
        sent = socket.send_fds(self._socket, [frame], list(descriptors))
        if sent < len(frame):
            self._socket.sendall(frame[sent:])

    def receive(self) -> list[tuple[ControlMessage, tuple[int, ...]]] | None:
        """Read once, waiting if there is nothing; `None` when the other end is gone.

        The caller owns the descriptors that come with a message: all of them, or none when this
        process could not take them all, having too many open files.
        """
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._socket, _READ_BYTES, _DESCRIPTORS_MAX
            )
        except ConnectionResetError:
            return None
        for descriptor in descriptors:
            # Or whatever a node starts with os.system would hold the worker's link open. Python's
            # recv_fds ignores its flags, MSG_CMSG_CLOEXEC among them.
            os.set_inheritable(descriptor, False)
        if descriptors or flags & socket.MSG_CTRUNC:
            self._descriptors.append(tuple(descriptors))
        if not data:
            return None
        return [self._with_descriptors(decode_control.decode(f)) for f in self._frames.feed(data)]

    def _with_descriptors(self, message: ControlMessage) -> tuple[ControlMessage, tuple[int, ...]]:
        count = DESCRIPTORS.get(type(message), 0)
        if not count:
            return message, ()
        descriptors = self._descriptors.popleft() if self._descriptors else ()
        if len(descriptors) == count:
            return message, descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        return message, ()

    def close(self) -> None:
        """Close the socket and the descriptors that nobody took."""
        for descriptor in chain.from_iterable(self._descriptors):
            os.close(descriptor)
        self._descriptors.clear()
        self._socket.close()
