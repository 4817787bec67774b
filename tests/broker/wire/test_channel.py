"""Mirror of broker/wire/channel.py."""

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from pronghorn.broker.wire.channel import GONE, ControlChannel, make_pair
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


@pytest.fixture
def descriptors_left(pair: object, pipe: object) -> Iterator[Callable[[int], None]]:
    """Leave this process as many descriptors as it is told."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers: list[int] = []

    def leave(count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, limits[1]))
        with suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(count):
            os.close(fillers.pop())

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for descriptor in fillers:
        os.close(descriptor)


@pytest.mark.parametrize("left", [0, 1])
def test_a_message_whose_descriptors_do_not_all_arrive_comes_with_none(
    pair: tuple[ControlChannel, ControlChannel],
    pipe: tuple[int, int],
    descriptors_left: Callable[[int], None],
    left: int,
) -> None:
    ours, theirs = pair
    descriptors_left(left)
    ours.send(WorkerStarted(1), pipe)
    assert theirs.receive() == [(WorkerStarted(1), ())]  # conftest.py sees if one is left open
    descriptors_left(2)
    ours.send(WorkerStarted(2), pipe)
    received = theirs.receive()
    assert received is not None
    ((message, descriptors),) = received
    assert message == WorkerStarted(2)
    os.write(descriptors[1], b"its own")
    assert os.read(descriptors[0], 64) == b"its own"
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_message_that_was_cut_keeps_its_place_when_its_descriptors_are_lost(
    pipe: tuple[int, int], descriptors_left: Callable[[int], None]
) -> None:
    sender, receiver = make_pair()
    channel = ControlChannel(receiver)
    first, second = (
        LENGTH.pack(len(body)) + body
        for body in (encode_control(StartWorker(1)), encode_control(StartWorker(2)))
    )
    descriptors_left(1)
    socket.send_fds(sender, [first[:3]], list(pipe))
    assert channel.receive() == []
    descriptors_left(2)
    sender.sendall(first[3:])
    socket.send_fds(sender, [second], list(pipe))
    received: Received = []
    while len(received) < 2:
        received += channel.receive() or []
    assert [(message, len(fds)) for message, fds in received] == [
        (StartWorker(1), 0),
        (StartWorker(2), 2),
    ]
    for descriptor in received[1][1]:
        os.close(descriptor)
    channel.close()
    sender.close()


def test_a_message_to_which_no_descriptors_were_sent_has_none() -> None:
    sender, receiver = make_pair()
    channel = ControlChannel(receiver)
    body = encode_control(StartWorker(1))
    sender.sendall(LENGTH.pack(len(body)) + body)
    assert channel.receive() == [(StartWorker(1), ())]
    channel.close()
    sender.close()


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
    with pytest.raises(GONE):
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
