"""Mirror of broker/journal_end.py: a stream whose other end is played here."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pronghorn.broker.events import (
    Event,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
)
from pronghorn.broker.journal.messages import (
    Broken,
    Committed,
    FromJournal,
    Hello,
    Hurry,
    Refused,
    Refusing,
    Welcome,
    frames_of,
    journal_end,
)
from pronghorn.broker.journal.record import Reopened
from pronghorn.broker.journal_end import JournalEnd
from pronghorn.broker.poller import Poller
from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.stream import FrameWriter

RECORD = Reopened(1, 1, 5)


class Bench:
    """A broker's end with its poller, and the journal's end of the stream."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.poller = Poller()
        self.ended: list[tuple[int, str]] = []  # numbers of streams, and why
        self.end = JournalEnd("e1", self.poller, self.events.append, self._on_ended)
        self._number = 0
        self.journal: socket.socket
        self.attach()

    def attach(self) -> None:
        ours, self.journal = make_pair()
        self.journal.setblocking(False)
        self._reader = journal_end()
        self._number += 1
        self.end.attach(self._number, (ours.detach(),))

    def _on_ended(self, number: int, why: str) -> None:
        self.ended.append((number, why))

    def read(self) -> list[Any]:
        """Read as the journal does, once."""
        try:
            data = self.journal.recv(MIB)
        except BlockingIOError:
            return []
        return [message for message, _ in self._reader.feed(data)]

    def say(self, message: FromJournal) -> list[Event]:
        """Be a journal that says something; returns what becomes of it."""
        writer = FrameWriter(self.journal)
        writer.put(frames_of(message))
        assert writer.flush()
        return self.turn()

    def turn(self) -> list[Event]:
        for fd, _ in self.poller.poll(0, 10):
            self.poller.handlers[fd]()
        events = list(self.events)
        self.events.clear()
        return events

    def close(self) -> None:
        self.end.close()
        self.journal.close()
        self.poller.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_it_says_hello_and_writes_records_when_it_is_told_to(bench: Bench) -> None:
    assert bench.read() == [Hello("e1")]
    bench.say(Welcome(0, ""))
    bench.end.write([frames_of(RECORD)])
    assert bench.read() == []
    bench.end.flush()
    assert bench.read() == [RECORD]


def test_nothing_is_written_before_the_welcome(bench: Bench) -> None:
    """What was meant for the journal before would be one record too many for this one."""
    for _ in range(2):
        assert bench.read() == [Hello("e1")]
        bench.end.write([frames_of(RECORD)])
        bench.end.hurry(waited_for=True)
        bench.end.flush()
        assert bench.read() == []
        bench.say(Welcome(0, ""))
        bench.end.flush()
        assert bench.read() == []
        bench.end.hurry(waited_for=True)
        bench.end.flush()
        assert bench.read() == [Hurry(waited_for=True)]
        bench.journal.close()
        bench.attach()
        bench.turn()


def test_what_the_journal_says_becomes_events(bench: Bench) -> None:
    (welcomed,) = bench.say(Welcome(7, "no room"))
    assert isinstance(welcomed, JournalWelcomed)
    assert (welcomed.acknowledged, welcomed.refusing, len(welcomed.seed)) == (7, "no room", 32)
    (committed,) = bench.say(Committed(9))
    assert isinstance(committed, JournalCommitted)
    assert committed.through == 9
    assert committed.clock_ns > 10**18  # some time after 2001, less this host's time up
    assert bench.say(Refusing("the disk is full")) == [JournalRefusing("the disk is full")]


def test_after_a_record_was_refused_it_says_hello_again(bench: Bench) -> None:
    bench.say(Welcome(7, ""))
    assert bench.read() == [Hello("e1")]
    assert bench.say(Refused(9, 2, "it follows nothing")) == [
        JournalRefused(9, 2, "it follows nothing")
    ]
    bench.end.write([frames_of(RECORD)])
    bench.end.flush()
    assert bench.read() == [Hello("e1")], "what was to be written is written after the welcome"
    bench.say(Welcome(8, ""))
    bench.end.write([frames_of(RECORD)])
    bench.end.flush()
    assert bench.read() == [RECORD]
    assert bench.ended == []


def test_why_a_stream_was_ended_is_told(bench: Bench) -> None:
    bench.say(Welcome(7, ""))
    (broke,) = bench.say(Broken("a frame is too long"))
    assert isinstance(broke, JournalBroke)
    assert "a frame is too long" in broke.why
    bench.journal.close()
    assert bench.turn() == [JournalGone()]
    assert bench.ended == [(1, broke.why)]
    bench.attach()
    bench.journal.close()
    assert bench.turn() == [JournalGone()]
    assert bench.ended[1:] == [(2, "")]


def test_what_can_not_be_read_ends_the_stream_behind_what_can(bench: Bench) -> None:
    writer = FrameWriter(bench.journal)
    for frames in (frames_of(Welcome(7, "")), (b"\xc1",), frames_of(Committed(9))):
        writer.put(frames)
    assert writer.flush()
    welcomed, gone = bench.turn()
    assert isinstance(welcomed, JournalWelcomed)
    assert gone == JournalGone()
    ((number, why),) = bench.ended
    assert number == 1
    assert "can't be read" in why


def test_its_end_is_told_once_and_what_is_written_then_goes_nowhere(bench: Bench) -> None:
    bench.journal.close()
    assert bench.turn() == [JournalGone()]
    bench.end.write([frames_of(RECORD)])
    bench.end.flush()
    assert bench.turn() == []
    assert bench.ended == [(1, "")]


def test_what_the_socket_does_not_take_is_written_when_it_does(bench: Bench) -> None:
    bench.read()
    bench.say(Welcome(0, ""))
    large = [bytes(4 * MIB), *frames_of(RECORD)]
    bench.end.write([large])
    bench.end.flush()
    taken = 0
    while taken < 4 * MIB:
        taken += len(bench.journal.recv(MIB))
        bench.turn()
    bench.end.write([frames_of(RECORD)])
    bench.end.flush()
    assert bench.turn() == []  # and nobody waits to write any more
    assert not bench.poller.poll(0, 10)


def test_another_stream_takes_the_place_of_the_first_whose_end_was_not_read(bench: Bench) -> None:
    bench.say(Welcome(0, ""))
    bench.journal.close()
    bench.attach()
    assert bench.turn() == [JournalGone()], "or records would be written before the next welcome"
    assert bench.read() == [Hello("e1")]
    bench.say(Welcome(0, ""))
    bench.end.write([frames_of(RECORD)])
    bench.end.flush()
    assert bench.read() == [RECORD]
    assert bench.turn() == []


def test_a_stream_that_did_not_arrive_is_told(bench: Bench) -> None:
    bench.end.attach(2, ())
    assert bench.turn() == [JournalGone("the broker has too many files open")]
    assert bench.ended == [(2, "the broker has too many files open")]
