"""The journal's writer as the subject, with what a broker does towards it.

Mirror: tests/bench/subjects/test_journal.py.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pronghorn.broker.journal.backlog import Backlog
from pronghorn.broker.journal.messages import (
    Committed,
    FromJournal,
    Hello,
    Hurry,
    Question,
    Refusing,
    Welcome,
    broker_end,
    frames_of,
)
from pronghorn.broker.journal.record import Record, generation_of
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    AttachBroker,
    ControlMessage,
    JournalConfig,
    JournalFailed,
    JournalOpened,
)
from pronghorn.broker.wire.link import READ_BYTES_MAX
from pronghorn.broker.wire.stream import FrameWriter

MODULE = "pronghorn.broker.journal.writer"
_PATIENCE_S = 60.0


class Journal:
    """A running writer, as its supervisor has it."""

    def __init__(self, config: JournalConfig, environment: dict[str, str] | None = None) -> None:
        """Start it; `opened` tells what came of it."""
        ours, theirs = make_pair()
        self.channel = ControlChannel(ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-m", MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | (environment or {}),
            )
        self.channel.send(config)
        self.opened: ControlMessage = self._first()

    def _first(self) -> ControlMessage:
        received = self.channel.receive()
        if not received:
            self.channel.close()
            raise AssertionError(f"the journal ended with {self.process.wait()}")
        return received[0][0]

    def attach(self, epoch: str) -> "Broker":
        """Give it a broker of that epoch."""
        ours, theirs = make_pair()
        with theirs:
            self.channel.send(AttachBroker(), (theirs.fileno(),))
        return Broker(ours, epoch)

    def kill(self) -> int:
        """Kill it and return how it ended."""
        self.process.send_signal(signal.SIGKILL)
        self.channel.close()
        return self.process.wait()

    def close(self) -> int:
        """Have it end; returns its exit status."""
        self.channel.close()
        return self.process.wait(_PATIENCE_S)


class Broker(FrameWriter):
    """What a broker does towards the journal: numbers records and holds them until they are kept.

    `outstanding` outlives a writer: `take_over` writes it to the next one.
    """

    def __init__(self, sock: Any, epoch: str) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self.epoch = epoch
        self.backlog: Backlog[int] | None = None  # until the first welcome
        self.refusing = ""
        self.answers: deque[tuple[FromJournal, Any]] = deque()
        self.commits = 0  # acknowledgements, each of one commit
        self.gone = False
        self._reader = broker_end()
        self.put(frames_of(Hello(epoch)))
        self.flush()

    def welcomed(self) -> "Broker":
        """Wait for the welcome."""
        self.until(lambda: self.backlog is not None)
        return self

    def take_over(self, backlog: Backlog[int]) -> "Broker":
        """Go on with the records of the same epoch that another writer has not acknowledged."""
        self.backlog = backlog
        welcome = self.next_answer(Welcome)
        backlog.acknowledge(welcome.acknowledged)
        for frames in backlog.unacknowledged():
            self.put(frames)
        self.flush()
        return self

    @property
    def acknowledged(self) -> int:
        """Number up to which all records are kept."""
        assert self.backlog is not None
        return self.backlog.acknowledged

    @property
    def next_sequence(self) -> int:
        """Number of the next record."""
        assert self.backlog is not None
        return self.backlog.next_sequence

    def write_record(self, record: Record, *buffers: bytes) -> int:
        """Write a record, at the latest with the next `exchange`; returns its number."""
        assert self.backlog is not None
        frames = [bytes(frame) for frame in frames_of(record, *buffers)]
        self.put(frames)
        return self.backlog.append(frames, time.monotonic())

    def hurry(self) -> None:
        """Say that somebody waits for the records so far, so that they are not left to gather."""
        self.put(frames_of(Hurry()))

    def ask(self, question: Question) -> Any:
        """Ask something and wait for the answer."""
        self.put(frames_of(question))
        return self.next_answer()

    def next_answer(self, kind: type | None = None) -> Any:
        """Wait for an answer, or for a message of that kind."""
        self.until(lambda: any(kind in (None, type(found)) for found, _ in self.answers))
        for index, (found, _) in enumerate(self.answers):
            if kind in (None, type(found)):
                self.last_buffers = self.answers[index][1]
                del self.answers[index]
                return found
        raise AssertionError

    def until(self, happened: Any, patience_s: float = _PATIENCE_S) -> None:
        """Exchange messages until something has happened."""
        deadline = time.monotonic() + patience_s
        while not happened():
            if self.gone or time.monotonic() > deadline:
                raise AssertionError("it does not happen, or the journal is gone")
            self.exchange(1.0)

    def settle(self) -> None:
        """Wait until all records are kept."""
        self.until(lambda: not self.backlog)

    def exchange(self, wait_s: float = 0.0) -> None:
        """Write what is to be written, and take in what has come, waiting for something to do."""
        self.flush()
        events = select.POLLIN | (select.POLLOUT if self.pending_bytes else 0)
        poll = select.poll()
        poll.register(self._socket.fileno(), events)
        for _, ready in poll.poll(wait_s * 1000):
            if ready & ~select.POLLOUT:
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES_MAX)
        except ConnectionResetError:
            data = b""
        if not data:
            self.gone = True
            return
        for message, buffers in self._reader.feed(data):
            self._take(message, buffers)

    def _take(self, message: FromJournal, buffers: Any) -> None:
        if isinstance(message, Committed):
            assert self.backlog is not None
            self.backlog.acknowledge(message.through)
            self.commits += 1
        elif isinstance(message, Welcome) and self.backlog is None:
            self.refusing = message.refusing
            self.backlog = Backlog(generation_of(message.acknowledged))
            assert message.acknowledged == self.backlog.acknowledged, "the epoch is not new"
        elif isinstance(message, Refusing):
            self.refusing = message.reason
        else:
            self.answers.append((message, buffers))

    def close(self) -> None:
        """Close the stream."""
        self._socket.close()


@contextlib.contextmanager
def journal(
    folder: Path, environment: dict[str, str] | None = None, **options: Any
) -> Iterator[Journal]:
    """Run a writer on a folder for the time of a block."""
    running = Journal(JournalConfig(folder=str(folder), **options), environment)
    try:
        if isinstance(running.opened, JournalFailed):
            raise AssertionError(running.opened.message)
        assert isinstance(running.opened, JournalOpened)
        yield running
    finally:
        if running.process.poll() is None:
            running.close()
        running.channel.close()
