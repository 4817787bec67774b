"""What brokers write to the journal, one after the other, and are told. An IO shell.

Of each there is a stream. It says hello and is welcomed; then its records queue to be kept
(batch.py), and its questions wait here. The next broker is served when the one before is gone and
all that it wrote is kept.

Mirror: tests/broker/journal/test_conversation.py.
"""

import logging
import select
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, cast, get_args

from ..wire.limits import MIB
from ..wire.link import READ_BYTES_MAX
from .batch import CommitQueue
from .messages import (
    Broken,
    Buffers,
    Entry,
    FromJournal,
    Hello,
    Hurry,
    Question,
    Refused,
    ToJournal,
    Void,
    Welcome,
)
from .record import Record
from .stream import BrokerStream

_log = logging.getLogger("pronghorn.broker.journal.writer")  # one logger for all of the process

ANSWERS_A_TURN: Final = 32
_READ_BYTES_A_TURN: Final = 4 * MIB
_ANSWER_BYTES_MAX: Final = 8 * MIB  # that a broker has not read; then its questions wait

_QUESTIONS: Final = get_args(Question)
_ENTRIES: Final = frozenset((*get_args(Record), Void))


class Conversation:
    """The stream of a broker, what it has asked, and the stream of the one that comes next.

    Args:
        queue: Takes its records.
        poll: Of the process; watches its stream.
    """

    def __init__(self, queue: CommitQueue[Entry], poll: select.poll) -> None:
        self._queue = queue
        self._poll = poll
        self.stream: BrokerStream | None = None
        self._next_stream: BrokerStream | None = None  # once all of the one before is kept
        self.hello: Hello | None = None  # that has no welcome yet
        self.welcomed = False
        self._is_deaf = False  # whether it is not to go on before another hello
        self._unread_bytes = 0  # of a message that has not come to its end
        self.questions: deque[Question] = deque()
        # About what is logged, for which there is no room in the store: answered when there is.
        self.kept_back: list[Question] = []
        self._watched = 0  # for what the poll watches the stream

    def attach(self, descriptor: int) -> None:
        """Take the stream of the next broker."""
        if self._next_stream is not None:  # of one that ended before it was served
            self._next_stream.close()
        self._next_stream = BrokerStream(descriptor)

    def watch(self) -> None:
        """Have the poll watch the stream for what it may read, and is to write."""
        stream = self.stream
        if stream is None:
            return
        events = select.POLLIN if self._may_read(stream) else 0
        if stream.pending_bytes:
            events |= select.POLLOUT
        if events == self._watched:
            return
        if events:
            self._poll.register(stream.fd, events)
            self._watched = events
        else:
            self._unwatch(stream)

    def read(self) -> int:
        """Take in what the broker has written, up to some bytes; returns how many there were.

        Contract: `watch` is called before, each time.
        """
        stream, read = self.stream, 0
        if stream is None:
            return read
        if stream.pending_bytes:
            stream.flush()
        may_read = bool(self._watched & select.POLLIN)  # as `watch` has found
        while may_read and read < _READ_BYTES_A_TURN:
            messages, size = stream.receive()
            if not size:
                break
            read += size
            self._unread_bytes += size
            if messages:
                each, self._unread_bytes = self._unread_bytes // len(messages), 0
                self._take_all(stream, messages, each)
            if stream.problem:
                self._break_off(f"what it wrote can't be read: {stream.problem}")
            if size < READ_BYTES_MAX:  # more comes with the next turn
                break
            may_read = self._may_read(stream)
        return read

    def is_slow(self) -> bool:
        """Whether the broker has not read what it asked for."""
        return self.stream is not None and self.stream.pending_bytes > _ANSWER_BYTES_MAX

    def tell(self, message: FromJournal) -> None:
        """Tell the broker something, if there is one."""
        if self.stream is not None:
            self.stream.tell(message)

    def welcome(self, welcome: Welcome) -> None:
        """Answer a broker's hello."""
        self.hello, self.welcomed = None, True
        self.tell(welcome)

    def refuse(self, refused: Refused) -> None:
        """Tell a broker that a record can't be kept, and listen to nothing before its next hello.

        The broker writes again what came behind it.
        """
        self.questions.clear()
        self.kept_back.clear()
        self.welcomed, self._is_deaf = False, True
        self.tell(refused)

    def change_streams(self) -> None:
        """Serve the next broker, when the one before is gone and all that it wrote is kept."""
        if self.stream is not None:
            if self.stream.alive or len(self._queue):
                return
            self._unwatch(self.stream)
            self.stream.close()
        self.questions.clear()
        self.kept_back.clear()
        self.hello, self._unread_bytes = None, 0
        self.welcomed = self._is_deaf = False
        self.stream, self._next_stream = self._next_stream, None

    def close(self) -> None:
        """Close all streams."""
        for stream in (self.stream, self._next_stream):
            if stream is not None:
                stream.close()

    def _may_read(self, stream: BrokerStream) -> bool:
        return (
            stream.alive
            and not self._queue.is_full
            and len(self.questions) + len(self.kept_back) < 10 * ANSWERS_A_TURN
            and self.hello is None
        )

    def _take_all(
        self, stream: BrokerStream, messages: Sequence[tuple[ToJournal, Buffers]], size: int
    ) -> None:
        """Take messages of so many bytes each, unless one of them has the stream broken off."""
        now, entries = time.monotonic(), list[Entry]()
        for received in messages:
            message = received[0]
            if type(message) in _ENTRIES and self.welcomed:
                entries.append(cast(Entry, received))
                continue
            if entries:
                self._queue.extend(entries, size, now)
                entries = []
            self._take(message)
            if not stream.alive:
                return
        if entries:
            self._queue.extend(entries, size, now)

    def _take(self, message: ToJournal) -> None:
        if isinstance(message, Hurry) and self.welcomed:
            self._queue.hurry(waited_for=message.waited_for)
        elif isinstance(message, _QUESTIONS) and self.welcomed:
            self.questions.append(message)
            self._queue.hurry()  # it is answered from what is kept
        elif isinstance(message, Hello) and self.hello is None and not self.welcomed:
            self.hello, self._is_deaf = message, False
        elif not self._is_deaf:
            self._break_off(f"{type(message).__name__} is not expected")

    def _break_off(self, why: str) -> None:
        """Have nothing more to do with a stream on which what came is no use: a defect of ours.

        What came before that is kept.
        """
        _log.error("the broker's stream is closed: %s", why)
        self.tell(Broken(why))
        if self.stream is not None:
            self.stream.break_off()

    def _unwatch(self, stream: BrokerStream) -> None:
        if self._watched:
            self._poll.unregister(stream.fd)
            self._watched = 0
