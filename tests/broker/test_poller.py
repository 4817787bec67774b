"""Mirror of broker/poller.py: who is called when what is ready."""

import os
import socket
from collections.abc import Iterator

import pytest

from pronghorn.broker.poller import Poller, nothing


class Bench:
    """A poller, a pair of sockets, and what was called."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.ours, self.theirs = socket.socketpair()
        self.called: list[str] = []

    def turn(self) -> list[str]:
        """Call the handlers of all that is ready, as the server does."""
        self.called.clear()
        for fd, _ in self.poller.poll(0, 64):
            self.poller.handlers[fd]()
        return list(self.called)

    def close(self) -> None:
        self.poller.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_a_handler_is_called_as_long_as_there_is_something_to_read(bench: Bench) -> None:
    bench.poller.watch(bench.ours.fileno(), lambda: bench.called.append("read"))
    assert bench.turn() == []
    bench.theirs.send(b"xy")
    assert bench.turn() == ["read"]
    bench.ours.recv(1)
    assert bench.turn() == ["read"], "a handler need not take all"
    bench.ours.recv(1)
    assert bench.turn() == []


def test_a_handler_is_called_at_the_end_of_the_other_side(bench: Bench) -> None:
    bench.poller.watch(bench.ours.fileno(), lambda: bench.called.append("read"))
    bench.theirs.close()
    assert bench.turn() == ["read"]


def test_a_handler_may_be_called_for_room_to_write_too(bench: Bench) -> None:
    fd = bench.ours.fileno()
    bench.poller.watch(fd, lambda: bench.called.append("read"))
    bench.poller.watch_both(fd, lambda: bench.called.append("both"))
    assert bench.turn() == ["both"]
    bench.poller.watch_reads(fd, lambda: bench.called.append("read again"))
    assert bench.turn() == []
    bench.theirs.send(b"x")
    assert bench.turn() == ["read again"]


def test_what_is_watched_no_more_in_the_middle_of_a_turn_is_not_called(bench: Bench) -> None:
    """Its descriptor was given out by the poll that the turn began with."""
    other, end = socket.socketpair()
    fds = [bench.ours.fileno(), other.fileno()]

    def forget_both() -> None:
        bench.called.append("first")
        for fd in fds:
            bench.poller.unwatch(fd)
        other.close()

    for fd in fds:
        bench.poller.watch(fd, forget_both)
    bench.theirs.send(b"x")
    end.send(b"x")
    assert bench.turn() == ["first"]
    assert bench.turn() == []
    end.close()


def test_a_descriptor_that_is_used_again_has_its_new_handler(bench: Bench) -> None:
    reader, writer = os.pipe()
    bench.poller.watch(reader, lambda: bench.called.append("old"))
    bench.poller.unwatch(reader)
    os.close(reader)
    again = os.dup(bench.ours.fileno())
    assert again == reader
    bench.poller.watch(again, lambda: bench.called.append("new"))
    bench.theirs.send(b"x")
    assert bench.turn() == ["new"]
    bench.poller.unwatch(again)
    os.close(again)
    os.close(writer)


def test_what_only_wakes_the_poll_does_nothing(bench: Bench) -> None:
    bench.poller.watch(bench.ours.fileno(), nothing)
    bench.theirs.send(b"x")
    assert bench.turn() == []
