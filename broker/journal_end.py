"""The broker's end of the stream to the journal's writer. An IO shell.

The supervisor hands it over, and another one when the writer, having died, was started again, or
when it is told that the stream has ended. What the writer says becomes events for the core, whose
records are written here: they never block, and what the socket does not take waits in memory, where
the core counts it until it is acknowledged.

Mirror: tests/broker/test_journal_end.py.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Final

from .events import (
    Event,
    JournalAnswered,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
)
from .journal.messages import (
    Broken,
    Committed,
    FromJournal,
    Hello,
    Hurry,
    Question,
    Refused,
    Refusing,
    Welcome,
    broker_end,
    encode_message,
    frames_of,
)
from .poller import Poller
from .wire.codec import DECODE_ERRORS
from .wire.link import READ_BYTES_MAX
from .wire.stream import FrameWriter

_log = logging.getLogger("pronghorn.broker.server")

_HURRY: Final = {
    waited_for: (encode_message(Hurry(waited_for=waited_for)),) for waited_for in (False, True)
}
_SEED_BYTES: Final = 32


class JournalEnd:
    """The stream to the journal, if there is one.

    Args:
        epoch: Of this broker.
        poller: Tells when it can be read or written to.
        handle: Takes the core's events.
        ended: Called with the number of a stream that has ended, and why, "" if that is not known.
    """

    def __init__(
        self,
        epoch: str,
        poller: Poller,
        handle: Callable[[Event], None],
        ended: Callable[[int, str], None],
    ) -> None:
        self._epoch = epoch
        self._poller = poller
        self._handle = handle
        self._ended = ended
        self._number = 0  # of the stream
        self._problem = ""  # what is wrong with it, once the journal has said so
        self._socket: socket.socket | None = None
        self._writer: FrameWriter | None = None  # with `_socket`
        self._reader = broker_end()
        self._waits_to_write = False
        self._is_welcome = False  # whether the journal takes more than the hello

    def attach(self, number: int, descriptors: Sequence[int]) -> None:
        """Use that stream from now on; the core hears of it when the journal has answered.

        Until then nothing may be written to it but the hello: what the journal has not kept is
        written again after its answer, and twice would be one record too many. So the core hears
        that the stream before is gone, whose end may not have been read yet.
        """
        had_one = self._socket is not None
        self.close()
        self._number, self._problem = number, ""
        if not descriptors:  # it did not arrive
            why = "the broker has too many files open"
            self._handle(JournalGone(why))
            self._ended(number, why)
            return
        if had_one:
            self._handle(JournalGone())
        self._socket = sock = socket.socket(fileno=descriptors[0])
        sock.setblocking(False)
        self._writer, self._reader = FrameWriter(sock), broker_end()
        self._poller.watch(sock.fileno(), self._read)
        self._writer.put(frames_of(Hello(self._epoch)))
        self.flush()

    def write(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Have messages written by the next `flush`, once the journal has said welcome.

        Before that nothing happens, nor when it is gone: the core, which may have meant the one
        before, hears of both, and writes again what was not kept and not answered.
        """
        if self._writer is not None and self._is_welcome:
            self._writer.put_bytes(list(chain.from_iterable(messages)))

    def ask(self, question: Question) -> None:
        """Have the journal asked something, as `write` does."""
        self.write(((encode_message(question),),))

    def hurry(self, *, waited_for: bool) -> None:
        """Have the journal told, by the next `flush`, to keep what was written, and for whom."""
        self.write((_HURRY[waited_for],))

    def write_at_once(self, records: Sequence[Sequence[bytes]], *, waited_for: bool) -> None:
        """Write records, `hurry`, and `flush`."""
        self.write((*records, _HURRY[waited_for]))
        self.flush()

    @property
    def has_unwritten(self) -> bool:
        """Whether there is something for `flush` to write."""
        return self._writer is not None and self._writer.pending_bytes > 0

    def flush(self) -> None:
        """Write what there is; what the socket does not take is written when it does."""
        writer, sock = self._writer, self._socket
        if writer is None or sock is None:
            return
        waits = not writer.flush() and not writer.is_broken  # its end is read
        if waits == self._waits_to_write:
            return
        self._waits_to_write = waits
        if waits:
            self._poller.watch_both(sock.fileno(), self._write_and_read)
        else:
            self._poller.watch_reads(sock.fileno(), self._read)

    def close(self) -> None:
        """Let go of the stream, all that it takes being written to it."""
        if self._socket is not None:
            self.flush()
            self._poller.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = self._writer = None
            self._waits_to_write = self._is_welcome = False

    def _write_and_read(self) -> None:
        self.flush()
        self._read()

    def _read(self) -> None:
        """Take in what the journal has said."""
        if self._socket is None:  # this turn's poll gave out what was closed in it
            return
        try:
            data = self._socket.recv(READ_BYTES_MAX)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._end(self._problem)
            return
        clock_ns = time.time_ns() - time.monotonic_ns()
        messages: list[tuple[FromJournal, Sequence[bytes]]] = []
        problem = ""
        try:
            self._reader.feed(data, messages)
        except DECODE_ERRORS as error:
            problem = f"what the journal says can't be read: {error}"
        for message, buffers in messages:
            self._take(message, buffers, clock_ns)
        if problem:
            _log.error("%s", problem)
            self._end(problem)

    def _end(self, why: str) -> None:
        self.close()
        self._handle(JournalGone())
        self._ended(self._number, why)

    def _take(self, message: FromJournal, buffers: Sequence[bytes], clock_ns: int) -> None:
        match message:
            case Committed(through):
                self._handle(JournalCommitted(through, clock_ns))
            case Welcome(acknowledged, refusing):
                self._is_welcome = True
                seed = os.urandom(_SEED_BYTES)
                self._handle(JournalWelcomed(acknowledged, refusing, seed, clock_ns))
            case Refusing(reason):
                self._handle(JournalRefusing(reason))
            case Refused(sequence, run, why):
                _log.error("the journal can't keep what was written: %s", why)
                self._is_welcome = False
                self._handle(JournalRefused(sequence, run, why))
                assert self._writer is not None
                self._writer.put(frames_of(Hello(self._epoch)))
                self.flush()
            case Broken(why):
                _log.error("the journal can't go on with what was written: %s", why)
                self._problem = f"it can't go on with what was written: {why}"
                self._is_welcome = False
                self._handle(JournalBroke(self._problem))
            case _:
                self._handle(JournalAnswered(message, buffers))
