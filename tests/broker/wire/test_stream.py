"""Mirror of broker/wire/stream.py: what is written, what is kept, and who is gone."""

import signal
import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest

from pronghorn.broker.wire.limits import KIB, MIB
from pronghorn.broker.wire.link import Buffer, FrameReader
from pronghorn.broker.wire.stream import FrameWriter, is_foreign


class Pair:
    """A writer and the other end."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.writer = FrameWriter(self.ours)
        self._reader = FrameReader()

    def read(self, most: int = 256 * KIB) -> list[bytes]:
        """Read once, if there is something."""
        try:
            return self._reader.feed(self.theirs.recv(most))
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_a_small_frame_is_written_at_once(pair: Pair) -> None:
    for frame in b"one", b"", b"three":
        assert pair.writer.write(frame)
        assert pair.read() == [frame]
    assert pair.writer.pending_frames == pair.writer.pending_bytes == 0


def test_what_is_put_leaves_together_with_the_next_flush(pair: Pair) -> None:
    frames: list[Buffer] = [
        b"one",
        bytearray(b"two"),
        memoryview(b"three"),
        memoryview(bytearray(b"4444")).cast("I"),
        b"",
    ]
    pair.writer.put(frames)
    assert pair.writer.pending_frames == 5
    assert pair.writer.pending_bytes == sum(4 + len(bytes(frame)) for frame in frames)
    assert pair.read() == []
    assert pair.writer.flush()
    assert pair.read() == [b"one", b"two", b"three", b"4444", b""]
    assert pair.writer.pending_frames == pair.writer.pending_bytes == 0
    assert pair.writer.flush()
    assert pair.read() == []


def test_what_does_not_fit_is_kept_in_order(pair: Pair) -> None:
    random = Random(5)
    frames = [
        bytes([index % 256]) * random.choice([0, 5, 3000, 70 * KIB, 400 * KIB])
        for index in range(60)
    ]
    for frame in frames:
        if random.random() < 0.5:
            pair.writer.write(frame)
        else:
            pair.writer.put([frame])
    assert not pair.writer.flush()
    assert pair.writer.pending_bytes > MIB
    received: list[bytes] = []
    before = pair.writer.pending_bytes
    while not pair.writer.flush():
        assert pair.writer.pending_bytes <= before
        before = pair.writer.pending_bytes
        received += pair.read(random.choice([1, 1000, 100_000]))
    while len(received) < len(frames):
        received += pair.read()
    assert received == frames
    assert pair.writer.pending_bytes == pair.writer.pending_frames == 0


def test_more_frames_than_the_system_takes_at_once(pair: Pair) -> None:
    frames = [b"%d" % index for index in range(3000)]
    pair.writer.put(frames)
    assert pair.writer.pending_frames == 3000
    received: list[bytes] = []
    while not pair.writer.flush():
        received += pair.read()
    while batch := pair.read():
        received += batch
    assert received == frames


def test_small_frames_that_wait_are_counted_each(pair: Pair) -> None:
    """Their number is bounded, whatever is tried again with each further one."""
    while pair.writer.write(b"x" * 3000):
        pass
    before = pair.writer.pending_frames
    for index in range(100):
        pair.writer.put([b"%d" % index])
        assert not pair.writer.flush()
        assert pair.writer.pending_frames == before + index + 1


def test_a_small_frame_that_does_not_fit_as_a_whole_is_continued(pair: Pair) -> None:
    count = 0
    while pair.writer.write(b"x" * 3000):
        count += 1
    assert 0 < pair.writer.pending_bytes <= 3004
    assert not pair.writer.write(b"last")
    received: list[bytes] = []
    while not pair.writer.flush():
        received += pair.read()
    while batch := pair.read():
        received += batch
    assert received == [b"x" * 3000] * (count + 1) + [b"last"]


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_kept_is_a_copy_of_what_may_change(pair: Pair, read_only: bool) -> None:
    large = bytearray(b"a" * MIB)
    view = memoryview(large)
    pair.writer.put([view.toreadonly() if read_only else view])
    assert not pair.writer.flush()
    large[:] = b"b" * MIB
    received: list[bytes] = []
    while not received:
        pair.writer.flush()
        received += pair.read()
    assert received == [b"a" * MIB]


@pytest.mark.parametrize("unread", [False, True], ids=["closed", "closed with something unread"])
def test_who_is_gone_makes_no_error(pair: Pair, unread: bool) -> None:
    if unread:
        assert pair.writer.write(b"never read")
    pair.theirs.close()
    assert not pair.writer.is_broken
    for _ in range(2):
        assert not pair.writer.write(b"one")
        assert pair.writer.is_broken
        pair.writer.put([b"two", b"x" * MIB])
        assert not pair.writer.flush()
    assert pair.writer.pending_bytes == pair.writer.pending_frames == 0


def test_who_goes_before_all_was_written(pair: Pair) -> None:
    pair.writer.put([b"x" * MIB, b"y" * MIB])
    assert not pair.writer.flush()
    pair.theirs.close()
    assert not pair.writer.flush()
    assert pair.writer.is_broken
    assert pair.writer.pending_bytes == pair.writer.pending_frames == 0


def test_who_reads_no_more_is_gone_too(pair: Pair) -> None:
    pair.theirs.shutdown(socket.SHUT_RD)
    assert not pair.writer.write(b"one")
    assert pair.writer.is_broken


class Interrupted:
    """Stands for a socket in the middle of whose system call a signal handler raises."""

    def __init__(self, sock: socket.socket, error: BaseException) -> None:
        self._socket = sock
        self._error = error

    def send(self, data: Buffer, flags: int) -> int:
        self._socket.send(data, flags)
        raise self._error

    def sendmsg(self, data: list[Buffer], ancillary: tuple[()], flags: int) -> int:
        self._socket.sendmsg(data, ancillary, flags)
        raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError("of an alarm")])
@pytest.mark.parametrize("small", [True, False])
def test_after_an_interrupted_write_nothing_is_written_twice(
    pair: Pair, error: BaseException, small: bool
) -> None:
    """How much was written is not known: so what waited is dropped, and the writer says so."""
    writer = FrameWriter(Interrupted(pair.ours, error))  # type: ignore[arg-type]
    if not small:
        writer.put([b"one", b"two"])
    with pytest.raises(type(error)):
        writer.write(b"one") if small else writer.flush()
    assert writer.is_broken
    assert writer.pending_bytes == writer.pending_frames == 0
    assert pair.read() == ([b"one"] if small else [b"one", b"two"])
    assert not writer.flush()
    assert pair.read() == []


def test_a_signal_handler_may_raise_what_looks_like_an_error_of_the_system() -> None:
    def handle(*_: object) -> None:
        raise TimeoutError("as programs do")

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(TimeoutError) as caught:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]
        assert is_foreign(caught.value)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert is_foreign(KeyboardInterrupt())
    with socket.socket() as sock, pytest.raises(OSError, match="not connected") as told:
        sock.getpeername()
    assert not is_foreign(told.value)
