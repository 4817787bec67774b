"""The journal's end of the stream of one broker. An IO shell.

Mirror: tests/broker/journal/test_stream.py.
"""

import socket
from contextlib import suppress

from ..wire.codec import DECODE_ERRORS
from ..wire.link import READ_BYTES_MAX
from ..wire.stream import FrameWriter
from .messages import Buffers, FromJournal, ToJournal, encode_message, journal_end


class BrokerStream(FrameWriter):
    """The stream of one broker; owns its socket."""

    __slots__ = ("_reader", "alive", "fd", "problem")

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket.socket(fileno=descriptor))
        self._socket.setblocking(False)
        self.fd = descriptor
        self.alive = True  # until all that the other end wrote was read
        self.problem = ""  # why what has come can't be read; then nothing more is to be received
        self._reader = journal_end()

    def receive(self) -> tuple[list[tuple[ToJournal, Buffers]], int]:
        """Read once, without waiting: messages that are complete now, and the bytes read.

        What comes behind them and can't be read is a `problem`.
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
        messages: list[tuple[ToJournal, Buffers]] = []
        try:
            self._reader.feed(data, messages)
        except DECODE_ERRORS as error:
            self.problem = str(error)
        return messages, len(data)

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
