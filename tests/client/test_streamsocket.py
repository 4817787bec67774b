"""The stream socket of a connection, against a bare listener."""

import asyncio
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from time import monotonic

import pytest
import uvloop
from descriptors import descriptors_left
from trees import PATIENCE_S

from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError, OverloadedError
from pronghorn.broker.wire.limits import KIB, MIB
from pronghorn.broker.wire.link import FrameReader
from pronghorn.client.sockets import SOON_MS, Attached
from pronghorn.client.streamsocket import StreamSocket

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Listener:
    """The other end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.accepted: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(self.path)
        self.socket.listen()

    def accept(self) -> socket.socket:
        connection, _ = self.socket.accept()
        connection.settimeout(PATIENCE_S)
        self.accepted.append(connection)
        return connection

    def close(self) -> None:
        self.socket.close()
        for connection in self.accepted:
            connection.close()


class Bench:
    """Sockets with their listener and a bell; all closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "broker.sock.stream")
        self.listener = Listener(self.path)
        self.bell, self.rope = socket.socketpair()
        self.made: list[StreamSocket] = []

    def make(self) -> StreamSocket:
        self.made.append(StreamSocket(self.path, self.bell.fileno()))
        return self.made[-1]

    def pair(self) -> tuple[StreamSocket, socket.socket]:
        """Make a connection; return both ends."""
        ours = self.make()
        assert ours.connect()
        return ours, self.listener.accept()

    def close(self) -> None:
        for ours in self.made:
            ours.close()
        self.listener.close()
        self.bell.close()
        self.rope.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def frame(data: bytes) -> bytes:
    return pack("<I", len(data)) + data


def read(theirs: socket.socket, count: int) -> list[bytes]:
    reader, frames = FrameReader(), list[bytes]()
    while len(frames) < count:
        data = theirs.recv(65536)
        assert data
        frames += reader.feed(data)
    return frames


def receive(ours: StreamSocket, count: int) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < count:
        one = ours.receive()
        if one is None:
            assert ours.wait(int(PATIENCE_S * 1000))
        else:
            frames.append(one)
    return frames


# --- connecting ---------------------------------------------------------------------------------


def test_who_does_not_listen_is_to_be_tried_again(bench: Bench) -> None:
    bench.listener.close()
    ours = bench.make()
    assert not ours.connect(), "a file that a killed broker has left"
    os.unlink(bench.path)
    assert not ours.connect()
    bench.listener.start()
    assert ours.connect()
    assert ours.connect(), "and it stays"
    assert ours._socket is not None


def test_a_listener_with_too_many_who_wait_is_to_be_tried_again(bench: Bench) -> None:
    bench.listener.socket.listen(0)
    first, second = bench.make(), bench.make()
    assert first.connect()
    begun = monotonic()
    assert not second.connect()
    assert monotonic() - begun < 0.1
    bench.listener.accept()
    assert second.connect()


def test_the_path_of_somebody_else_is_told(bench: Bench) -> None:
    os.chmod(bench.path, 0)
    user = os.geteuid()
    if user == 0:  # to whom nothing is forbidden
        os.seteuid(65534)
    try:
        with pytest.raises(InvalidArgumentError, match="can't connect to"):
            bench.make().connect()
    finally:
        os.seteuid(user)


def test_a_process_without_descriptors_is_told(bench: Bench) -> None:
    ours = bench.make()
    with descriptors_left(0), pytest.raises(OverloadedError, match="can't make a socket"):
        ours.connect()
    assert ours.connect()


def test_without_a_connection_nothing_is_sent_or_received(bench: Bench) -> None:
    ours = bench.make()
    for frames in [b"one"], [b"one", b"two"], [b"x" * MIB]:
        with pytest.raises(BrokerLostError, match="no connection") as caught:
            ours.send(frames)
        assert caught.value.outcome == "not_started"
    assert ours.receive() is ours.receive_soon() is None
    assert not ours.readable()
    assert not ours.wait(1)
    assert not ours.disconnected()
    ours.detach()


# --- frames -------------------------------------------------------------------------------------


def test_frames_there_and_back(bench: Bench) -> None:
    ours, theirs = bench.pair()
    messages = [
        [b"small"],
        [b""],
        [b"several", bytearray(b"frames"), memoryview(b"of all kinds")],
        [b"x" * (30 * KIB)],
        [memoryview(bytearray(b"y" * 60 * KIB)).cast("I"), b"z" * (20 * KIB)],
    ]
    for message in messages:
        ours.send(message)
        assert read(theirs, len(message)) == [bytes(one) for one in message]
    assert ours.receive() is None
    theirs.sendall(frame(b"one") + frame(b"") + frame(b"three") + frame(b"four")[:5])
    assert ours.receive_soon() == b"one"
    assert ours.readable()
    assert ours.wait(0)
    assert ours.receive() == b""
    assert ours.receive_soon() == b"three"
    assert not ours.readable()
    assert ours.receive() is None
    theirs.sendall(frame(b"four")[5:])
    assert ours.receive_soon() == b"four"


def test_a_receive_that_waits_gives_up_soon(bench: Bench) -> None:
    ours, theirs = bench.pair()
    begun = monotonic()
    assert ours.receive_soon() is None
    assert SOON_MS / 1000 * 0.9 <= monotonic() - begun < SOON_MS / 1000 + 0.1
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: theirs.sendall(frame(b"soon")))
        assert receive(ours, 1) == [b"soon"]


def test_a_frame_of_any_length_is_put_together(bench: Bench) -> None:
    ours, theirs = bench.pair()
    frames = [bytes([index]) * size for index, size in enumerate((1, 3 * MIB, 70_000, 5))]
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(theirs.sendall, b"".join(map(frame, frames)))
        assert receive(ours, 4) == frames
        sent.result()


def test_what_does_not_fit_leaves_while_the_reply_is_waited_for(bench: Bench) -> None:
    ours, theirs = bench.pair()
    large = bytearray(8 * MIB)
    ours.send([b"call", large])
    ours.send([b"next"])
    large[:] = b"x" * len(large)  # what was given to send may change at once
    assert ours.receive_soon() is None, "or the rest would not leave meanwhile"
    with ThreadPoolExecutor(1) as thread:
        taken = thread.submit(read, theirs, 3)
        taken.add_done_callback(lambda _: theirs.sendall(frame(b"reply")))
        assert receive(ours, 1) == [b"reply"]
        assert taken.result() == [b"call", bytes(8 * MIB), b"next"]


def test_a_bell_ends_the_wait(bench: Bench) -> None:
    ours, _ = bench.pair()
    assert not ours.wait(1)
    threading.Timer(0.01, bench.rope.shutdown, [socket.SHUT_RDWR]).start()
    assert ours.wait(-1)
    assert ours.receive() is None
    unconnected = bench.make()
    assert unconnected.wait(-1)


# --- losses -------------------------------------------------------------------------------------


def test_a_lost_connection_is_told_once_and_made_anew(bench: Bench) -> None:
    ours, theirs = bench.pair()
    assert not ours.disconnected()
    theirs.close()
    assert ours.wait(-1)
    assert ours.receive() is None
    assert ours.wait(-1), "nothing else would end a wait any more"
    assert ours.disconnected()
    assert not ours.disconnected()
    assert not ours.wait(1)
    assert ours.connect()
    bench.listener.accept().sendall(frame(b"welcome"))
    assert receive(ours, 1) == [b"welcome"]


@pytest.mark.parametrize("soon", [True, False])
def test_a_loss_ends_every_kind_of_receive(bench: Bench, soon: bool) -> None:
    ours, theirs = bench.pair()
    theirs.sendall(frame(b"last"))
    ours.send([b"never read"])
    theirs.close()  # which resets the connection
    get = ours.receive_soon if soon else ours.receive
    assert get() == b"last"
    assert get() is None
    assert ours.disconnected()


def test_half_a_frame_is_forgotten_with_its_connection(bench: Bench) -> None:
    ours, theirs = bench.pair()
    theirs.sendall(frame(b"one") + frame(b"two")[:5])
    theirs.close()
    assert ours.receive() == b"one"
    assert ours.receive() is None
    assert ours.disconnected()
    assert ours.connect()
    bench.listener.accept().sendall(frame(b"new"))
    assert receive(ours, 1) == [b"new"]


@pytest.mark.parametrize("frames", [[b"small"], [b"x" * MIB]])
def test_one_frame_that_does_not_leave_was_not_sent(bench: Bench, frames: list[bytes]) -> None:
    ours, theirs = bench.pair()
    theirs.sendall(frame(b"one") + frame(b"two"))
    theirs.close()
    with pytest.raises(BrokerLostError, match="no connection") as caught:
        ours.send(frames)
    assert caught.value.outcome == "not_started"
    assert [ours.receive(), ours.receive(), ours.receive()] == [b"one", b"two", None]
    assert ours.disconnected()


def test_several_frames_that_do_not_leave_may_have_been_sent(bench: Bench) -> None:
    ours, theirs = bench.pair()
    theirs.sendall(frame(b"one"))
    theirs.close()
    ours.send([b"call", b"x" * MIB])
    assert ours.wait(-1)
    assert [ours.receive(), ours.receive()] == [b"one", None]
    assert ours.disconnected()


def test_a_loss_while_something_waits_to_leave(bench: Bench) -> None:
    ours, theirs = bench.pair()
    ours.send([b"x" * (8 * MIB)])
    assert not ours.wait(1)
    theirs.sendall(frame(b"last"))
    theirs.close()
    assert receive(ours, 1) == [b"last"]
    while not ours.disconnected():
        assert ours.wait(-1)
        assert ours.receive() is None


def test_an_error_of_a_signal_handler_is_none_of_the_connection_s(bench: Bench) -> None:
    ours, theirs = bench.pair()

    def handle(*_: object) -> None:
        raise TimeoutError("as programs do")

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        for wait in (lambda: ours.receive_soon(), lambda: ours.wait(-1)):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            with pytest.raises(TimeoutError, match="as programs do"):
                wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert not ours.disconnected()
    ours.send([b"still there"])
    assert read(theirs, 1) == [b"still there"]


# --- on a loop ----------------------------------------------------------------------------------


class Attendant:
    """Takes in what an attached socket has, on a loop, until something is there."""

    def __init__(self, ours: StreamSocket, loop: asyncio.AbstractEventLoop) -> None:
        self.ours = ours
        self.loop = loop
        self.frames: list[bytes] = []
        self.losses = 0
        ours.attach(Attached(loop, self.on_readable, self.on_lost))

    def on_readable(self) -> None:
        while (one := self.ours.receive()) is not None:
            self.frames.append(one)
        self.loop.stop()

    def on_lost(self) -> None:
        self.losses += self.ours.disconnected()
        self.on_readable()

    def run_until(self, condition: Callable[[], object]) -> None:
        guard = self.loop.call_later(PATIENCE_S, self.loop.stop)
        while not condition():
            assert guard.when() > self.loop.time()
            self.loop.run_forever()
        guard.cancel()


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop: asyncio.AbstractEventLoop = request.param()
    yield loop
    loop.close()


def test_a_loop_calls_back_across_losses(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ours = bench.make()
    attendant = Attendant(ours, loop)
    for number in range(1, 4):
        assert ours.connect()
        theirs = bench.listener.accept()
        theirs.sendall(frame(b"%d" % number))
        attendant.run_until(lambda number=number: len(attendant.frames) == number)
        theirs.sendall(frame(b"half")[:3])
        theirs.close()
        attendant.run_until(lambda number=number: attendant.losses == number)
    assert attendant.frames == [b"1", b"2", b"3"]


def test_a_loop_writes_what_does_not_fit(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = bench.pair()
    attendant = Attendant(ours, loop)
    ours.send([b"call", b"x" * (8 * MIB)])
    ours.send([b"next"])
    with ThreadPoolExecutor(1) as thread:
        taken = thread.submit(read, theirs, 3)
        taken.add_done_callback(lambda _: theirs.sendall(frame(b"reply")))
        attendant.run_until(lambda: attendant.frames)
        assert [len(one) for one in taken.result()] == [4, 8 * MIB, 4]
    if isinstance(loop, asyncio.SelectorEventLoop):  # it is not called for nothing any more
        assert not loop.remove_writer(ours._socket.fileno())  # type: ignore[union-attr]


@pytest.mark.parametrize("frames", [[b"x"], [b"x" * MIB], [b"call", b"x" * MIB]])
def test_a_loop_is_told_of_a_loss_that_shows_when_sending(
    bench: Bench, loop: asyncio.AbstractEventLoop, frames: list[bytes]
) -> None:
    ours, theirs = bench.pair()
    attendant = Attendant(ours, loop)
    theirs.sendall(frame(b"last"))
    theirs.close()
    try:
        ours.send(frames)
    except BrokerLostError:
        assert len(frames) == 1
    attendant.run_until(lambda: attendant.losses)
    assert (attendant.frames, attendant.losses) == ([b"last"], 1)


def test_a_loop_is_told_of_a_loss_while_it_writes(
    bench: Bench, loop: asyncio.AbstractEventLoop
) -> None:
    ours, theirs = bench.pair()
    attendant = Attendant(ours, loop)
    ours.send([b"x" * (8 * MIB)])
    theirs.close()
    attendant.run_until(lambda: attendant.losses)


def test_a_loop_that_is_closed_keeps_nothing_from_being_closed(
    bench: Bench, loop: asyncio.AbstractEventLoop
) -> None:
    ours, theirs = bench.pair()
    Attendant(ours, loop)
    loop.close()
    ours.detach()
    ours.send([b"goodbye"])
    ours.close()
    assert read(theirs, 1) == [b"goodbye"]
    assert theirs.recv(1) == b""


def test_who_is_detached_is_left_alone(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = bench.pair()
    attendant = Attendant(ours, loop)
    ours.detach()
    theirs.sendall(frame(b"one"))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert attendant.frames == []
    assert ours.receive() == b"one"
    theirs.close()
    assert ours.receive() is None
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not attendant.losses


# --- forks --------------------------------------------------------------------------------------


def test_a_forked_child_does_not_keep_the_connection_open(
    bench: Bench, loop: asyncio.AbstractEventLoop
) -> None:
    ours, theirs = bench.pair()
    attendant = Attendant(ours, loop)
    done, wake = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(wake)
        waits = ours.wait(-1), ours.disconnected(), ours.receive()
        try:
            ours.send([b"the parent's to send"])
        except BrokerLostError:
            os.read(done, 1)
            os._exit(0 if waits == (True, True, None) else 1)
        os._exit(2)
    try:
        theirs.sendall(frame(b"still mine"))
        attendant.run_until(lambda: attendant.frames)
        assert attendant.frames == [b"still mine"]
        ours.close()
        assert theirs.recv(100) == b""
        assert select.select([theirs], [], [], 0)[0]
    finally:
        os.close(wake)
        assert os.waitpid(pid, 0)[1] == 0
        os.close(done)
