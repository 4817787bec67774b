"""The broker's ends of the links to its workers. An IO shell.

Mirror: tests/broker/test_links.py.
"""

import socket
from collections.abc import Sequence

from .wire.codec import DECODE_ERRORS
from .wire.link import (
    LENGTH,
    READ_BYTES_MAX,
    READ_BYTES_MIN,
    Buffer,
    ToBroker,
    ToWorker,
    broker_end,
    encode_link,
    next_read_bytes,
)

_VECTOR_MAX = 512  # buffers of one sendmsg, below the system's IOV_MAX of 1024


class LinkError(Exception):
    """A worker broke the private protocol of its link; it has to be replaced."""


class WorkerLink:
    """One link: reads whole messages, writes without blocking and keeps what does not fit.

    What is kept is bounded by what the core gives to one worker (window.py).
    """

    __slots__ = (
        "_pending",
        "_read_bytes",
        "_reader",
        "_recv",
        "_socket",
        "_writable",
        "alive",
        "worker_id",
    )

    def __init__(self, worker_id: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.worker_id = worker_id
        self.alive = True  # until all that the other end wrote before it closed was read
        self._writable = True  # until a write failed
        self._socket = sock
        self._recv = sock.recv
        self._reader = broker_end()
        self._read_bytes = READ_BYTES_MIN
        self._pending: list[Buffer] = []  # to be written, oldest first

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

    def write(self, message: ToWorker, buffers: Sequence[bytes]) -> bool:
        """Write a message at once, if nothing is pending; as `put` and `flush` otherwise."""
        if self._pending or buffers or not self._writable:
            self.put(message, buffers)
            return self.flush()
        body = encode_link(message)
        data = LENGTH.pack(len(body)) + body
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the worker is gone; its exit is reported by the supervisor
            self._writable = False
            return True
        if sent == len(data):
            return True
        self._pending.append(memoryview(data)[sent:])
        return False

    def put(self, message: ToWorker, buffers: Sequence[bytes]) -> None:
        """Add a message to what the next `flush` writes."""
        body = encode_link(message)
        self._pending.append(LENGTH.pack(len(body)) + body)
        for buffer in buffers:
            self._pending.append(LENGTH.pack(len(buffer)))
            self._pending.append(buffer)

    def flush(self) -> bool:
        """Write what is pending; `False` if the socket is full and the rest has to wait."""
        pending = self._pending
        while pending and self._writable:
            try:
                if len(pending) == 1:
                    sent = self._socket.send(pending[0])
                else:
                    sent = self._socket.sendmsg(pending[:_VECTOR_MAX])
            except BlockingIOError:
                return False
            except OSError:  # the worker is gone; its exit is reported by the supervisor
                self._writable = False
                pending.clear()
                break
            self._drop(sent)
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _drop(self, sent: int) -> None:
        """Take out the bytes that were written."""
        pending = self._pending
        done = 0
        while done < len(pending) and sent >= len(pending[done]):
            sent -= len(pending[done])
            done += 1
        del pending[:done]
        if sent:
            pending[0] = memoryview(pending[0])[sent:]
