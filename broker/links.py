"""The broker's ends of the links to its workers. An IO shell.

Mirror: tests/broker/test_links.py.
"""

import socket
from collections.abc import Sequence

from .wire.codec import DECODE_ERRORS
from .wire.link import (
    READ_BYTES_MAX,
    READ_BYTES_MIN,
    ToBroker,
    ToWorker,
    broker_end,
    encode_link,
    next_read_bytes,
)
from .wire.stream import FrameWriter


class LinkError(Exception):
    """A worker broke the private protocol of its link; it has to be replaced."""


class WorkerLink(FrameWriter):
    """One link: reads whole messages, writes without blocking and keeps what does not fit.

    What is kept is bounded by what the core gives to one worker (window.py). That a worker is gone
    is reported by the supervisor, so a broken link only swallows what is written.
    """

    __slots__ = ("_read_bytes", "_reader", "_recv", "alive", "worker_id")

    def __init__(self, worker_id: int, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self.worker_id = worker_id
        self.alive = True  # until all that the other end wrote before it closed was read
        self._recv = sock.recv
        self._reader = broker_end()
        self._read_bytes = READ_BYTES_MIN

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def receive(self) -> list[tuple[ToBroker, Sequence[bytes]]]:
        """Read once: the messages that are complete now, with their buffers."""
        try:
            data = self._recv(self._read_bytes)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            self.alive = False
            return []
        self._read_bytes = next_read_bytes(self._read_bytes, len(data))
        try:
            return self._reader.feed(data)
        except DECODE_ERRORS as error:
            raise LinkError(f"worker {self.worker_id} wrote what can't be read: {error}") from error

    def drain(self) -> list[tuple[ToBroker, Sequence[bytes]]]:
        """Read all that a dead worker has written."""
        messages: list[tuple[ToBroker, Sequence[bytes]]] = []
        while self.alive:
            try:
                data = self._recv(READ_BYTES_MAX)
            except (BlockingIOError, ConnectionResetError):
                break
            if not data:
                break
            try:
                messages += self._reader.feed(data)
            except DECODE_ERRORS:  # it may have died because its memory was damaged
                break
        return messages

    def give(self, message: ToWorker, buffers: Sequence[bytes]) -> bool:
        """Write a message at once; `False` if some of it has to wait for `flush`."""
        if buffers:
            self.hold(message, buffers)
            return self.flush()
        return self.write(encode_link(message)) or self.is_broken

    def flush(self) -> bool:
        """Write what is pending; `False` if the socket is full and the rest has to wait."""
        return super().flush() or self.is_broken

    def hold(self, message: ToWorker, buffers: Sequence[bytes]) -> None:
        """Add a message to what the next `flush` writes."""
        self.put((encode_link(message), *buffers))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
