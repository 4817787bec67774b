"""Mirror of broker/wire/channel.py."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    BrokerFailed,
    ControlMessage,
    Shutdown,
    StartWorker,
    WorkerForked,
    WorkerReady,
    WorkerStarted,
    encode_control,
)
from pronghorn.broker.wire.link import LENGTH

Received = list[tuple[ControlMessage, tuple[int, ...]]]


@pytest.fixture
def pair() -> Iterator[tuple[ControlChannel, ControlChannel]]:
    ours, theirs = (ControlChannel(end) for end in make_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_messages_come_in_order_and_whole(pair: tuple[ControlChannel, ControlChannel]) -> None:
    ours, theirs = pair
    sent = [WorkerReady(1), WorkerForked(2, 77), Shutdown()]
    for message in sent:
        ours.send(message)
    assert theirs.receive() == [(message, ()) for message in sent]


def test_descriptors_come_with_their_message(
    pair: tuple[ControlChannel, ControlChannel], pipe: tuple[int, int]
) -> None:
    ours, theirs = pair
    ours.send(WorkerReady(1))
    ours.send(WorkerStarted(2), pipe)
    ours.send(WorkerReady(3))
    received: Received = []
    while len(received) < 3:  # the kernel ends a read at descriptors
        received += theirs.receive() or []
    assert [message for message, _ in received] == [
        WorkerReady(1),
        WorkerStarted(2),
        WorkerReady(3),
    ]
    assert [len(descriptors) for _, descriptors in received] == [0, 2, 0]
    reader, writer = received[1][1]
    os.write(pipe[1], b"through our end")
    assert os.read(reader, 64) == b"through our end"
    os.close(reader)
    os.close(writer)


def test_descriptors_that_came_are_not_inherited(
    pair: tuple[ControlChannel, ControlChannel], pipe: tuple[int, int]
) -> None:
    ours, theirs = pair
    ours.send(StartWorker(2), pipe)
    received = theirs.receive()
    assert received is not None
    for descriptor in received[0][1]:
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_several_messages_with_descriptors_keep_their_own(
    pair: tuple[ControlChannel, ControlChannel], pipe: tuple[int, int]
) -> None:
    ours, theirs = pair
    ours.send(StartWorker(1), (pipe[0], pipe[0]))
    ours.send(StartWorker(2), (pipe[1], pipe[1]))
    received: Received = []
    while len(received) < 2:
        received += theirs.receive() or []
    modes = [
        [os.fstat(fd).st_ino == os.fstat(pipe[0]).st_ino for fd in descriptors]
        for _, descriptors in received
    ]
    assert modes == [[True, True], [True, True]]
    for fd in received[0][1]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")  # the reading end
    for fd in received[1][1]:
        os.write(fd, b"x")
    for _, descriptors in received:
        for fd in descriptors:
            os.close(fd)


def test_a_message_cut_anywhere_comes_once_it_is_whole() -> None:
    ours, theirs = make_pair()
    channel = ControlChannel(theirs)
    body = encode_control(BrokerFailed("in use"))
    received: Received = []
    for byte in LENGTH.pack(len(body)) + body:
        ours.send(bytes([byte]))
        received += channel.receive() or []
    assert received == [(BrokerFailed("in use"), ())]
    ours.close()
    channel.close()


def test_a_large_message_waits_for_its_reader(pair: tuple[ControlChannel, ControlChannel]) -> None:
    ours, theirs = pair
    message = BrokerFailed("x" * 1_000_000)
    sender = threading.Thread(target=ours.send, args=(message,))
    sender.start()
    received: Received = []
    while not received:
        received += theirs.receive() or []
    sender.join()
    assert received == [(message, ())]


def test_the_end_of_the_other_side_is_none(pair: tuple[ControlChannel, ControlChannel]) -> None:
    ours, theirs = pair
    ours.send(WorkerReady(1))
    ours.close()
    assert theirs.receive() == [(WorkerReady(1), ())]
    assert theirs.receive() is None
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        theirs.send(Shutdown())


def test_a_reset_is_the_end_too() -> None:
    ours, theirs = make_pair()
    channel = ControlChannel(theirs)
    channel.send(Shutdown())
    ours.close()  # with unread bytes, which Linux tells as a reset
    assert channel.receive() is None
    channel.close()


def test_closing_closes_what_nobody_took(
    pair: tuple[ControlChannel, ControlChannel], pipe: tuple[int, int]
) -> None:
    sender, receiver = make_pair()
    channel = ControlChannel(receiver)
    socket.send_fds(sender, [b"\x05\x00"], list(pipe))  # two descriptors, half a message
    assert channel.receive() == []
    channel.close()
    sender.close()  # the leak check of conftest.py sees the rest


def test_an_inherited_end_goes_no_further() -> None:
    ours, theirs = make_pair()
    descriptor = os.dup(theirs.fileno())
    os.set_inheritable(descriptor, True)
    channel = ControlChannel.inherited(descriptor)
    assert channel.fileno() == descriptor
    assert not os.get_inheritable(descriptor)
    ControlChannel(ours).send(WorkerReady(1))
    assert channel.receive() == [(WorkerReady(1), ())]
    for end in (ours, theirs):
        end.close()
    channel.close()
