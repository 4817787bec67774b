"""Frames over AF_UNIX stream sockets: writes that never block. An IO shell.

Shared by the links to workers and by the streams that stand beside the ipc endpoints.

Mirror: tests/broker/wire/test_stream.py.
"""

import socket
from collections.abc import Sequence
from itertools import chain

from .limits import KIB
from .link import LENGTH, Buffer

_VECTOR_MAX = 512  # buffers of one sendmsg, below the system's IOV_MAX of 1024
_JOINED_BYTES_MAX = 16 * KIB
"""What is less goes as one piece: to copy it costs less than to hand over a list of pieces."""

_DONTWAIT = int(socket.MSG_DONTWAIT)
_LENGTH_BYTES = LENGTH.size
_pack_length = LENGTH.pack


class FrameWriter:
    """The writing half of a stream: never blocks, keeps what does not fit, in order.

    How much is kept is for the owner to bound, by `pending_bytes` and `pending_frames`.
    """

    __slots__ = ("_own_count", "_pending", "_send", "_socket", "is_broken", "pending_bytes")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send = sock.send
        self._pending: list[Buffer] = []  # to be written, oldest first
        self._own_count = 0  # of these, so many from the first on nobody else can write to
        self.pending_bytes = 0
        self.is_broken = False  # whether a write failed: the other end is gone, or reads no more

    @property
    def pending_frames(self) -> int:
        """How many frames are to be written, at most: a length is kept beside each."""
        return (len(self._pending) + 1) // 2

    def write(self, frame: bytes) -> bool:
        """Write one small frame at once; returns as `flush` does.

        Behind what is pending it waits for the next `flush`.
        """
        if self._pending:
            self.put((frame,))
            return False
        data = _pack_length(len(frame)) + frame
        try:
            sent = self._send(data, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        except BaseException as error:
            self.is_broken = True
            if is_foreign(error):
                raise
            return False
        if sent == len(data):
            return True
        self._pending.append(memoryview(data)[sent:])
        self.pending_bytes = len(data) - sent
        return False

    def put(self, frames: Sequence[Buffer]) -> None:
        """Add frames to what the next `flush` writes; what that does not is kept as a copy."""
        pending = self._pending
        for frame in frames:
            if type(frame) is not bytes:
                frame = memoryview(frame).cast("B")
            length = len(frame)
            pending += (_pack_length(length), frame)
            self.pending_bytes += length + _LENGTH_BYTES

    def put_bytes(self, frames: Sequence[bytes]) -> None:
        """Do what `put` does, for many small frames, in a fifth of the time."""
        sizes = list(map(len, frames))
        self._pending += chain.from_iterable(zip(map(_pack_length, sizes), frames, strict=True))
        self.pending_bytes += sum(sizes) + _LENGTH_BYTES * len(sizes)

    def flush(self) -> bool:
        """Write what is pending.

        Returns:
            `False` if something was not written: because the socket is full, so that the rest has
            to wait, or because `is_broken`, so that nothing is kept.
        """
        pending = self._pending
        try:
            while pending and not self.is_broken:
                if len(pending) == 1:
                    sent = self._send(pending[0], _DONTWAIT)
                elif self.pending_bytes <= _JOINED_BYTES_MAX:
                    sent = self._send(b"".join(pending), _DONTWAIT)
                else:
                    sent = self._socket.sendmsg(pending[:_VECTOR_MAX], (), _DONTWAIT)
                if sent == self.pending_bytes:  # nearly always
                    pending.clear()
                    self.pending_bytes = self._own_count = 0
                    return True
                self._drop(sent)
        except BlockingIOError:
            self._own()
            return False
        except BaseException as error:  # an interrupt too: how much was written is not known then
            self.is_broken = True
            if is_foreign(error):
                raise
        finally:
            if self.is_broken:
                pending.clear()
                self.pending_bytes = self._own_count = 0
        return not self.is_broken

    def _drop(self, sent: int) -> None:
        """Take out the bytes that were written, which are not all."""
        pending = self._pending
        self.pending_bytes -= sent
        done = 0
        while done < len(pending) and sent >= len(pending[done]):
            sent -= len(pending[done])
            done += 1
        del pending[:done]
        self._own_count = max(0, self._own_count - done)
        if sent:
            pending[0] = memoryview(pending[0])[sent:]

    def _own(self) -> None:
        """Copy what others may write to before it is sent."""
        pending = self._pending
        for index in range(self._own_count, len(pending)):
            rest = pending[index]
            # A view that is read-only says nothing of what it is a view of.
            if isinstance(rest, memoryview) and not isinstance(rest.obj, bytes):
                pending[index] = bytes(rest)
        self._own_count = len(pending)


def is_foreign(error: BaseException) -> bool:
    """Whether an error is none of the system's: a signal handler may raise one, of any type."""
    return not isinstance(error, OSError) or error.errno is None
