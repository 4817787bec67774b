"""Mirror of broker/journal/conversation.py: real processes."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_records import accepted, value
from journal_writers import whole, write_run

from pronghorn.bench.subjects.journal import Broker, journal
from pronghorn.broker.journal.messages import (
    AskStatistics,
    Broken,
    Hello,
    ReadValue,
    Welcome,
    frames_of,
)
from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.control import AttachBroker

pytestmark = pytest.mark.slow


def test_what_came_before_what_can_not_be_read_is_kept(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(50):
            write_run(broker)
        before = broker.next_sequence - 1
        broker.put((b"\xc1",))
        write_run(broker)
        assert isinstance(broker.next_answer(Broken), Broken)
        broker.close()
        assert broker.backlog is not None
        again = running.attach("e1")
        again.backlog = broker.backlog
        assert again.next_answer(Welcome).acknowledged == before
        again.close()
    whole(folder)


def test_large_values_and_buffers_go_both_ways(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        buffer = os.urandom(20_000_000)
        content = value("x" * 1_000_000)
        run = broker.write_record(
            accepted(broker.next_sequence, value=content, buffers=2), buffer, b"small"
        )
        write_run(broker)
        found = broker.ask(ReadValue(1, run, run))
        assert bytes(found.value) == bytes(content)
        assert list(broker.last_buffers) == [buffer, b"small"]
        broker.close()
    whole(folder)


def test_a_broker_that_ends_has_all_kept_that_it_wrote(folder: Path) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        for _ in range(500):
            write_run(broker)
        while broker.pending_bytes:
            broker.exchange()
        broker.close()  # without having waited for anything
        broker = running.attach("e2").welcomed()
        assert broker.ask(AskStatistics(1)).counts.records == 1000
        broker.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda broker: broker.put(frames_of(Hello("again"))),
        lambda broker: broker.put((b"\xc1",)),
    ],
)
def test_a_defective_broker_is_told_and_the_next_one_is_served(
    folder: Path, wrong: Callable[[Broker], object]
) -> None:
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        write_run(broker)
        broker.settle()
        wrong(broker)
        assert isinstance(broker.next_answer(), Broken)
        while not broker.gone:
            broker.exchange(1.0)
        broker.close()
        broker = running.attach("e2").welcomed()
        assert broker.ask(AskStatistics(1)).counts.records == 2
        broker.close()
    whole(folder)


def test_records_before_the_welcome_are_refused(folder: Path) -> None:
    with journal(folder) as running:
        ours, theirs = make_pair()
        running.channel.send(AttachBroker(), (theirs.fileno(),))
        theirs.close()
        with ours:
            ours.sendall(b"".join(_framed(accepted(1))))
            ours.settimeout(20.0)
            assert b"Accepted is not expected" in _read_all(ours)


def _framed(record: Any) -> list[bytes]:
    (frame,) = frames_of(record)
    return [len(frame).to_bytes(4, "little"), bytes(frame)]


def _read_all(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(4096):
        data += part
    return data


def test_a_broker_that_never_came_is_passed_over(folder: Path) -> None:
    with journal(folder) as running:
        for epoch in ("e1", "e2", "e3"):
            running.attach(epoch).close()
        broker = running.attach("e4").welcomed()
        write_run(broker)
        broker.settle()
        broker.close()
