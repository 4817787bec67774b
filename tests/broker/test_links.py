"""Mirror of broker/links.py."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Raw

from pronghorn.broker.links import LinkError, WorkerLink
from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.link import (
    LENGTH,
    CancelRun,
    Done,
    MessageReader,
    RunCall,
    Skipped,
    Stop,
    ToWorker,
    pack,
    worker_end,
)


class Pair:
    """A link and the worker's end of it."""

    def __init__(self) -> None:
        ours, self.worker = make_pair()
        self.worker.setblocking(False)
        self.link = WorkerLink(7, ours)
        self._reader: MessageReader[ToWorker] = worker_end()

    def read(self) -> list[tuple[ToWorker, list[bytes]]]:
        """Read as a worker does, once."""
        try:
            return self._reader.feed(self.worker.recv(1 << 20))
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.link.close()
        self.worker.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def run(token: int, params: bytes = b"\x80", buffers: int = 0) -> RunCall:
    return RunCall(token, 0, 0, 0, Raw(params), None, buffers)


def tokens(received: list[tuple[Any, list[bytes]]]) -> list[int]:
    return [message.token for message, _ in received]


# --- reading -------------------------------------------------------------------------------------


def test_messages_are_read_with_their_buffers(pair: Pair) -> None:
    pair.worker.send(pack(Skipped(1)) + pack(Done(2, Raw(b"\xc0"), 5, 1), (b"buffer",)))
    received = pair.link.receive()
    assert tokens(received) == [1, 2]
    assert [buffers for _, buffers in received] == [[], [b"buffer"]]
    assert pair.link.receive() == []
    assert pair.link.alive


def test_the_descriptor_is_the_sockets(pair: Pair) -> None:
    assert pair.link.fileno() > 0


def test_a_message_cut_in_two_comes_with_its_second_half(pair: Pair) -> None:
    data = pack(Skipped(1))
    pair.worker.send(data[:5])
    assert pair.link.receive() == []
    pair.worker.send(data[5:])
    assert tokens(pair.link.receive()) == [1]


def test_the_end_of_a_worker_is_seen_after_its_last_word(pair: Pair) -> None:
    pair.worker.send(pack(Skipped(1)))
    pair.worker.close()
    assert tokens(pair.link.receive()) == [1]
    assert pair.link.alive
    assert pair.link.receive() == []
    assert not pair.link.alive
    assert pair.link.drain() == []


def test_a_worker_that_ends_with_unread_requests_is_seen_too(pair: Pair) -> None:
    pair.link.give(run(1), ())
    pair.worker.close()  # Linux tells a reset
    assert pair.link.receive() == []
    assert not pair.link.alive


def test_draining_reads_all_that_a_dead_worker_wrote(pair: Pair) -> None:
    written = 0
    for token in range(1, 5000):
        try:
            pair.worker.send(pack(Done(token, Raw(b"\xc4\x40" + bytes(64)), 5)))
        except BlockingIOError:
            break
        written = token
    pair.worker.close()
    assert tokens(pair.link.drain()) == list(range(1, written + 1))
    assert written > 100


def test_draining_a_link_with_nothing_in_it_ends(pair: Pair) -> None:
    assert pair.link.drain() == []  # its other end may have been inherited by somebody


def test_a_reset_while_draining_ends_it(pair: Pair) -> None:
    pair.link.give(run(1), ())
    pair.worker.close()
    assert pair.link.drain() == []


def test_what_is_no_message_is_an_error_that_names_the_worker(pair: Pair) -> None:
    pair.worker.send(LENGTH.pack(3) + b"abc")
    with pytest.raises(LinkError, match="worker 7 wrote what can't be read"):
        pair.link.receive()


def test_draining_stops_at_what_is_no_message(pair: Pair) -> None:
    pair.worker.send(pack(Skipped(1)))
    assert tokens(pair.link.receive()) == [1]
    pair.worker.send(LENGTH.pack(3) + b"abc" + pack(Skipped(2)))
    assert pair.link.drain() == []


# --- writing -------------------------------------------------------------------------------------


def test_a_message_is_written_at_once(pair: Pair) -> None:
    assert pair.link.give(run(1), ())
    assert tokens(pair.read()) == [1]
    assert pair.link.give(run(2, buffers=2), (b"one", b"two"))
    [(message, buffers)] = pair.read()
    assert isinstance(message, RunCall)
    assert (message.token, buffers) == (2, [b"one", b"two"])


def test_messages_put_leave_together(pair: Pair) -> None:
    pair.link.hold(run(1), ())
    pair.link.hold(run(2, buffers=1), (b"buffer",))
    pair.link.hold(CancelRun(1), ())
    assert pair.read() == []
    assert pair.link.flush()
    received = pair.read()
    assert tokens(received) == [1, 2, 1]
    assert received[1][1] == [b"buffer"]
    assert pair.link.flush()
    assert pair.read() == []


def test_one_put_message_leaves_alone(pair: Pair) -> None:
    pair.link.hold(Stop(), ())
    assert pair.link.flush()
    assert [message for message, _ in pair.read()] == [Stop()]


def test_many_messages_leave_in_several_writes(pair: Pair) -> None:
    for token in range(700):
        pair.link.hold(run(token), ())
    assert pair.link.flush()
    received: list[Any] = []
    while batch := pair.read():
        received += batch
    assert tokens(received) == list(range(700))


@pytest.mark.parametrize("by_put", [False, True])
def test_what_a_full_socket_does_not_take_waits_in_order(pair: Pair, by_put: bool) -> None:
    params = b"\xc6" + (100_000).to_bytes(4, "big") + bytes(100_000)
    all_written = True
    for token in range(10):
        if by_put:
            pair.link.hold(run(token, params), ())
            all_written = pair.link.flush()
        else:
            all_written = pair.link.give(run(token, params), ())
    assert not all_written
    received: list[Any] = []
    while len(received) < 10:
        received += pair.read()
        pair.link.flush()
    assert tokens(received) == list(range(10))
    assert pair.link.flush()


def test_small_messages_to_a_full_socket_wait_too(pair: Pair) -> None:
    token = 0
    while pair.link.give(run(token), ()):
        token += 1
    received: list[Any] = []
    while len(received) <= token:
        received += pair.read()
        pair.link.flush()
    assert tokens(received) == list(range(token + 1))


def test_writing_to_a_dead_worker_is_no_error(pair: Pair) -> None:
    pair.worker.close()
    assert pair.link.give(run(1), ())
    assert pair.link.give(run(2), ())
    pair.link.hold(run(3), ())
    assert pair.link.flush()


def test_flushing_to_a_dead_worker_is_no_error(pair: Pair) -> None:
    pair.link.hold(run(1), ())
    pair.worker.close()
    assert pair.link.flush()
    pair.link.hold(run(2), ())
    assert pair.link.flush()


def test_a_link_never_blocks(pair: Pair) -> None:
    assert not os.get_blocking(pair.link.fileno())
