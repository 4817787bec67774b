"""The journal's end of the stream of one broker. An IO shell.

Mirror: tests/broker/journal/test_stream.py.
"""

import socket
from contextlib import suppress

from ..wire.link import READ_BYTES_MAX
from ..wire.stream import FrameWriter
from .messages import FromJournal, ToJournal, encode_message, journal_end
from .posting import Buffers


class BrokerStream(FrameWriter):
    """The stream of one broker; owns its socket."""

    __slots__ = ("_reader", "alive", "fd")

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket.socket(fileno=descriptor))
        self._socket.setblocking(False)
        self.fd = descriptor
        self.alive = True  # until all that the other end wrote was read
        self._reader = journal_end()

    def receive(self) -> tuple[list[tuple[ToJournal, Buffers]], int]:
        """Read once, without waiting: messages that are complete now, and the bytes read.

        Raises:
            ValueError: They can't be read (or another of DECODE_ERRORS).
        """
        try:
            data = self._socket.recv(READ_BYTES_MAX)
        except BlockingIOError:
            return [], 0
        except ConnectionResetError:
            data = b""
        if not data:
            self.alive = False
            return [], 0
        return self._reader.feed(data), len(data)

    def tell(self, message: FromJournal) -> None:
        """Write a message; what does not fit is kept, in order."""
        self.write(encode_message(message))

    def break_off(self) -> None:
        """Read and write no more; the other end gets what was written."""
        self.alive = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
