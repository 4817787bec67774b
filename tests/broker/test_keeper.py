"""Mirror of broker/keeper.py: the real writer, with a broker played here."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from trees import PATIENCE_S

from pronghorn.broker.journal.messages import Hello, Welcome, broker_end, frames_of
from pronghorn.broker.keeper import EXIT_S, NO_FOLDER, Keeper
from pronghorn.broker.restart import BACKOFF_FIRST_S, INTENSITY
from pronghorn.broker.watcher import Watcher
from pronghorn.broker.wire.control import ControlMessage, JournalAbsent, JournalAttached
from pronghorn.broker.wire.stream import FrameWriter

pytestmark = pytest.mark.slow


class PlayedBroker:
    """Notes what a broker is told, and keeps the streams that it is given."""

    def __init__(self) -> None:
        self.told: list[ControlMessage] = []
        self.streams: list[socket.socket] = []

    def take(self, message: ControlMessage, descriptors: tuple[int, ...]) -> None:
        self.told.append(message)
        for descriptor in descriptors:
            stream = socket.socket(fileno=os.dup(descriptor))
            stream.settimeout(PATIENCE_S)
            self.streams.append(stream)


class Bench:
    """A keeper in a loop."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.broker = PlayedBroker()
        self.keepers: list[Keeper] = []

    def keeper(self, folder: str) -> Keeper:
        keeper = Keeper(folder, "CRITICAL", "human", self.watcher, self.broker.take)
        self.keepers.append(keeper)
        return keeper

    def until(self, happened: Callable[[], object]) -> None:
        deadline = monotonic() + PATIENCE_S
        while not happened():
            assert monotonic() < deadline, "it does not happen"
            self.watcher.turn(deadline)

    def welcome(self, epoch: str) -> Welcome:
        """Be a broker that says hello on the latest stream, and return the answer."""
        stream = self.broker.streams[-1]
        writer, reader = FrameWriter(stream), broker_end()
        writer.put(frames_of(Hello(epoch)))
        assert writer.flush()
        while not (received := reader.feed(stream.recv(4096))):
            pass
        ((welcome, _),) = received
        assert isinstance(welcome, Welcome)
        return welcome

    def close(self) -> None:
        for keeper in self.keepers:
            keeper.close()
        for stream in self.broker.streams:
            stream.close()
        self.watcher.wait_for_children(PATIENCE_S)
        self.watcher.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_without_a_folder_there_is_no_journal(bench: Bench) -> None:
    keeper = bench.keeper("")
    keeper.start_if_used()
    keeper.broker_bound()
    keeper.open()
    assert bench.broker.told == [JournalAbsent(NO_FOLDER)]
    assert keeper.pid == 0


def test_it_is_started_when_it_is_asked_for_and_at_the_next_start(
    bench: Bench, tmp_path: Path
) -> None:
    folder = str(tmp_path / "data")
    keeper = bench.keeper(folder)
    keeper.start_if_used()
    keeper.broker_bound()
    assert (keeper.pid, bench.broker.told) == (0, [])
    keeper.open()
    keeper.open()  # another broker's wish changes nothing
    bench.until(lambda: bench.broker.told)
    assert bench.broker.told == [JournalAttached(1)]
    bench.welcome("e1")
    os.kill(keeper.pid, signal.SIGKILL)
    bench.until(lambda: len(bench.broker.told) == 2)  # another one, another stream
    assert bench.broker.told[1] == JournalAttached(2)
    bench.welcome("e1")
    keeper.close()
    bench.watcher.wait_for_children(PATIENCE_S)
    next_ = bench.keeper(folder)
    next_.start_if_used()
    assert next_.pid
    next_.broker_bound()
    bench.until(lambda: len(bench.broker.told) == 3)
    bench.welcome("e2")


def test_each_broker_gets_a_stream_of_its_own(bench: Bench, tmp_path: Path) -> None:
    keeper = bench.keeper(str(tmp_path / "data"))
    keeper.broker_bound()
    keeper.open()
    bench.until(lambda: bench.broker.told)
    first = bench.welcome("e1")
    bench.broker.streams[-1].close()
    keeper.broker_ended()
    keeper.broker_bound()
    assert bench.broker.told == [JournalAttached(1), JournalAttached(2)]
    assert bench.welcome("e2").acknowledged > first.acknowledged


def test_a_folder_that_can_not_be_used_is_told_and_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    keeper = bench.keeper(str(folder))
    keeper.broker_bound()
    keeper.open()
    bench.until(lambda: bench.broker.told)
    absent = bench.broker.told[0]
    assert isinstance(absent, JournalAbsent)
    assert absent.message == f"{folder} is open to other users: chmod 700 {folder}"
    keeper.open()  # by a new broker, while it waits to be tried again
    assert bench.broker.told[-1] == absent
    folder.chmod(0o700)
    bench.until(lambda: bench.broker.told[-1] == JournalAttached(1))


def test_a_stream_that_has_ended_is_replaced_while_both_live(bench: Bench, tmp_path: Path) -> None:
    keeper = bench.keeper(str(tmp_path / "data"))
    keeper.broker_bound()
    keeper.open()
    bench.until(lambda: bench.broker.told)
    first = bench.welcome("e1")
    writer = keeper.pid
    bench.broker.streams[-1].close()
    keeper.stream_ended(1, "it can't be read")
    keeper.stream_ended(1, "it can't be read")
    bench.until(lambda: len(bench.broker.told) == 2)
    assert bench.broker.told[1] == JournalAttached(2)
    assert bench.welcome("e1").acknowledged == first.acknowledged
    assert keeper.pid == writer
    keeper.stream_ended(1, "")  # that was replaced
    deadline = monotonic() + 3 * EXIT_S
    while monotonic() < deadline:
        bench.watcher.turn(deadline)
    assert len(bench.broker.told) == 2


def test_streams_that_end_again_and_again_are_replaced_later_and_have_the_journal_started_anew(
    bench: Bench, tmp_path: Path
) -> None:
    keeper = bench.keeper(str(tmp_path / "data"))
    keeper.broker_bound()
    keeper.open()
    bench.until(lambda: bench.broker.told)
    writer, begun, waits = keeper.pid, monotonic(), list[float]()
    for number in range(1, INTENSITY + 2):
        keeper.stream_ended(number, "")
        bench.until(lambda number=number: len(bench.broker.told) > number)  # type: ignore[misc]
        waits.append(monotonic() - begun)
        begun = monotonic()
        assert (keeper.pid == writer) == (number <= INTENSITY)
    assert waits[:INTENSITY] == sorted(waits[:INTENSITY])
    assert waits[0] >= BACKOFF_FIRST_S
    assert waits[INTENSITY - 1] >= 2 ** (INTENSITY - 1) * BACKOFF_FIRST_S
    assert bench.broker.told[-1] == JournalAttached(INTENSITY + 2)
    bench.welcome("e1")


def test_the_end_of_the_journal_is_not_taken_for_that_of_its_stream(
    bench: Bench, tmp_path: Path
) -> None:
    keeper = bench.keeper(str(tmp_path / "data"))
    keeper.broker_bound()
    keeper.open()
    for number in range(1, INTENSITY + 3):
        bench.until(lambda number=number: len(bench.broker.told) == number)  # type: ignore[misc]
        assert bench.broker.told[-1] == JournalAttached(number)
        writer = keeper.pid
        os.kill(writer, signal.SIGKILL)
        keeper.stream_ended(number, "")
