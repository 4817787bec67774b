"""Control channels: messages with file descriptors over an AF_UNIX stream. An IO shell.

Used by host, supervisor, broker and template; none of them sends much, so a write blocks when the
reader is behind.

Mirror: tests/broker/wire/test_channel.py.
"""

import os
import socket
from collections import deque
from typing import Self

from .control import DESCRIPTORS, ControlMessage, decode_control, encode_control
from .link import LENGTH, FrameReader

_READ_BYTES = 65536
_DESCRIPTORS_MAX = 64  # of one read; the kernel never joins more than one message with descriptors


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel or link."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class ControlChannel:
    """One end of a control channel; owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frames = FrameReader()
        self._descriptors: deque[int] = deque()  # received, not yet handed out with their message

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
            OSError: The other end is gone.
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

        The caller owns the descriptors that come with a message.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _DESCRIPTORS_MAX)
        except ConnectionResetError:
            return None
        for descriptor in descriptors:
            # Or whatever a node starts with os.system would hold the worker's link open. Python's
            # recv_fds ignores its flags, MSG_CMSG_CLOEXEC among them.
            os.set_inheritable(descriptor, False)
            self._descriptors.append(descriptor)
        if not data:
            return None
        received = []
        for frame in self._frames.feed(data):
            message = decode_control.decode(frame)
            count = DESCRIPTORS.get(type(message), 0)
            received.append((message, tuple(self._descriptors.popleft() for _ in range(count))))
        return received

    def close(self) -> None:
        """Close the socket and the descriptors that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._socket.close()
