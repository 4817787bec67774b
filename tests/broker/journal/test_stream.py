"""Mirror of broker/journal/stream.py."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from journal_records import accepted, value

from pronghorn.broker.journal.messages import Committed, Hello, broker_end, frames_of
from pronghorn.broker.journal.stream import BrokerStream
from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.stream import FrameWriter


class Ends(NamedTuple):
    """A stream, and the broker's end of it."""

    stream: BrokerStream
    broker: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = make_pair()
    stream = BrokerStream(theirs.detach())
    with ours:
        ours.settimeout(10.0)
        yield Ends(stream, ours)
    stream.close()


def test_nothing_is_waited_for(ends: Ends) -> None:
    assert ends.stream.receive() == ([], 0)
    assert ends.stream.alive


def test_messages_come_whole_with_their_buffers(ends: Ends) -> None:
    sender = FrameWriter(ends.broker)
    sender.put(frames_of(Hello("e1")))
    sender.put(frames_of(accepted(value=value(["a"]), buffers=1), b"x" * 50_000))
    sender.flush()
    got: list[tuple[str, list[bytes]]] = []
    read = 0
    while len(got) < 2:
        messages, size = ends.stream.receive()
        read += size
        got += [(type(message).__name__, list(buffers)) for message, buffers in messages]
    assert got == [("Hello", []), ("Accepted", [b"x" * 50_000])]
    assert read > 50_000


def test_what_it_tells_reaches_the_broker(ends: Ends) -> None:
    ends.stream.tell(Committed(7))
    ((message, _),) = broker_end().feed(ends.broker.recv(4096))
    assert message == Committed(7)


def test_it_is_alive_until_all_was_read(ends: Ends) -> None:
    ends.broker.sendall(b"\x04\x00")
    ends.broker.close()
    assert ends.stream.receive() == ([], 2)
    assert ends.stream.alive
    assert ends.stream.receive() == ([], 0)
    assert not ends.stream.alive
    ends.stream.tell(Committed(7))
    assert ends.stream.is_broken


def test_what_comes_before_what_is_no_message_is_not_lost(ends: Ends) -> None:
    sender = FrameWriter(ends.broker)
    sender.put(frames_of(Hello("e1")))
    sender.put((b"\xc1",))
    sender.put(frames_of(Hello("e2")))
    sender.flush()
    messages, size = ends.stream.receive()
    assert [message for message, _ in messages] == [Hello("e1")]
    assert size
    assert ends.stream.problem


def test_a_broker_that_is_broken_off_reads_what_was_told(ends: Ends) -> None:
    ends.stream.tell(Committed(7))
    ends.stream.break_off()
    assert not ends.stream.alive
    assert ends.broker.recv(4096)
    assert ends.broker.recv(4096) == b""
    ends.stream.break_off()
