"""The journal where its disk, its power or its processes fail."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lmdb
import pytest
from disks import kills, powerloss
from disks.shim import COMPILER, NEEDS_COMPILER, failing, library
from journal_records import Story, accepted, step, value
from sleeping import sleeps_begun
from trees import PATIENCE_S

from pronghorn.bench.subjects.journal import Broker, Journal, journal
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.messages import (
    AskStatistics,
    FoundOpen,
    FoundValue,
    ListOpen,
    Question,
    ReadValue,
    frames_of,
)
from pronghorn.broker.journal.place import BALLAST_NAME
from pronghorn.broker.journal.record import Started, TaskDone
from pronghorn.broker.journal.store import Store
from pronghorn.broker.wire.control import JournalConfig, JournalFailed, JournalOpened

KILLS = 12
STATES = 100
DISK_BYTES = 16 * 1024 * 1024

pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NEEDS_COMPILER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def whole(folder: Path, records: int) -> None:
    report = check_folder(folder, at_rest=True)
    assert report.problems == []
    assert report.records == records


def once_and_again(otherwise: str) -> Iterator[None]:
    """Let a loop try something until it leaves, for so long as a test may wait."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        yield
    raise AssertionError(otherwise)


# --- kills and power ---


def test_whatever_is_killed_what_was_acknowledged_is_kept(folder: Path) -> None:
    killed = kills.campaign(folder, KILLS, seed=17)
    assert killed.records > 100


@needs_compiler
def test_a_loss_of_power_loses_nothing_that_was_acknowledged() -> None:
    assert powerloss.campaign(STATES, seed=17) == []


@needs_compiler
def test_what_was_not_synced_would_be_lost_and_noticed() -> None:
    """The control: with syncs that do nothing most states are broken, so these would be found."""
    assert len(powerloss.campaign(20, seed=17, unsynced=True)) > 5


# --- writes and syncs that fail ---


class Served:
    """A story that is being kept, by one writer after the other if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.story = Story()
        self.random = Random(3)
        self.broker: Broker | None = None
        self.running: Journal | None = None

    def serve(self, environment: dict[str, str] | None = None) -> None:
        """Start a writer, and give it what was not kept."""
        config = JournalConfig(folder=str(self.folder), age_s=1e10)
        self.running = Journal(config, environment)
        assert isinstance(self.running.opened, JournalOpened), self.running.opened
        before, self.broker = self.broker, self.running.attach("e1")
        if before is None or before.backlog is None:
            self.broker.welcomed()
        else:
            self.broker.take_over(before.backlog)

    def write(self, records: int) -> None:
        """Write records, a commit each as long as the writer lives."""
        assert self.broker is not None
        until = len(self.story.records) + records
        while len(self.story.records) < until and not self.broker.gone:
            begin = len(self.story.records)
            step(self.story, self.random)
            for sequence, record in self.story.records[begin:]:
                assert self.broker.write_record(record) == sequence
            if self.random.random() < 0.5:
                self.broker.hurry()
            self.broker.exchange(0.002)

    def settle(self) -> bool:
        """Wait until all is kept; `False` if the writer ends before that."""
        assert self.broker is not None
        while self.broker.backlog and not self.broker.gone:
            self.broker.exchange(1.0)
        return not self.broker.gone

    def end(self) -> int:
        """Have the writer end, unless it has; returns its exit status."""
        assert self.running is not None
        assert self.broker is not None
        self.running.channel.close()
        status = self.running.process.wait(20.0)
        self.broker.close()
        return status


FAILURES = [
    (kind, error)
    for kind in ("write", "meta", "sync", "log")
    for error in (errno.ENOSPC, errno.EIO, 0)
    if (kind, error) != ("sync", 0)  # which can't be done by half
]


@needs_compiler
@pytest.mark.parametrize("number", [1, 2, 30])
@pytest.mark.parametrize(("kind", "error"), FAILURES)
def test_a_call_that_fails_loses_nothing(folder: Path, kind: str, number: int, error: int) -> None:
    served = Served(folder)
    served.serve()
    served.write(20)
    assert served.settle()
    assert served.end() == 0
    served.serve(failing(kind, number, error))
    served.write(60)
    served.settle()
    # It may end after all was acknowledged, too: when the store takes in what is logged.
    if served.end() != 0:
        assert error != errno.ENOSPC or kind == "meta", "a full disk is no reason to end"
        served.serve()
        assert served.settle()
        assert served.end() == 0
    whole(folder, len(served.story.records))


@needs_compiler
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_when_the_store_is_made_is_told(folder: Path, error: int) -> None:
    for number in range(1, 4):
        running = Journal(JournalConfig(folder=str(folder)), failing("write", number, error))
        assert isinstance(running.opened, JournalFailed)
        assert os.strerror(error) in running.opened.message
        assert running.close() == 1
    with journal(folder) as after:
        assert after.opened == JournalOpened(0)


@needs_compiler
def test_a_full_disk_refuses_new_runs_and_heals_by_itself(folder: Path, tmp_path: Path) -> None:
    """Full for as long as a file is there: nothing is lost, and nobody has to start again."""
    full = tmp_path / "full"
    environment = failing("write", 12, errno.ENOSPC, count=0) | {"DISK_FAIL_WHILE": str(full)}
    full.touch()
    with journal(folder, environment) as running:
        broker = running.attach("e1").welcomed()
        while not broker.refusing:
            broker.write_record(accepted(broker.next_sequence))
            broker.exchange(0.01)
        assert "no room on the disk" in broker.refusing
        outstanding = len(broker.backlog or ())
        assert outstanding
        assert broker.ask(AskStatistics(1)).counts.records == broker.acknowledged - 2**40
        full.unlink()
        broker.settle()
        broker.until(lambda: not broker.refusing)
        records = broker.next_sequence - 2**40 - 1
        broker.close()
    whole(folder, records)


@needs_compiler
def test_a_question_about_what_is_only_logged_waits_for_room(folder: Path, tmp_path: Path) -> None:
    """Others are answered meanwhile; what becomes of a run must not hang on a full disk."""
    full = tmp_path / "full"
    environment = failing("write", 1, errno.ENOSPC, count=0) | {"DISK_FAIL_WHILE": str(full)}
    with journal(folder, environment) as running:
        broker = running.attach("e1").welcomed()
        other = broker.write_record(accepted(broker.next_sequence))
        broker.settle()
        full.touch()
        run = broker.write_record(accepted(broker.next_sequence))
        broker.hurry()
        broker.settle()
        for question in (ReadValue(1, run, run), ListOpen(2, 0, 10)):
            broker.put(frames_of(question))
        assert broker.ask(ReadValue(3, other, other)).id == 3
        assert "no room on the disk" in broker.refusing
        until_tried_again(running, broker, ReadValue(4, other, other))
        assert not broker.answers
        full.unlink()
        assert broker.next_answer(FoundValue).id == 1
        assert len(broker.next_answer(FoundOpen).runs) == 2
        broker.until(lambda: not broker.refusing)
        broker.close()
    whole(folder, 2)


# --- a small disk ---


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 16 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a tmpfs can't be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path, *, but_bytes: int) -> Path:
    """Take all room of a disk but so much."""
    room = os.statvfs(disk)
    filler = disk / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - but_bytes)
    return filler


def until_tried_again(running: Journal, broker: Broker, question: Question) -> None:
    """Wait until a writer without room has woken by itself, and tried to commit once more.

    Args:
        running: The writer.
        broker: Its broker.
        question: What it can answer meanwhile.
    """
    broker.ask(question)  # it has no more to do than that
    asleep = sleeps_begun(running.process.pid) + 1
    broker.until(lambda: sleeps_begun(running.process.pid) > asleep)
    broker.ask(question)


def test_on_a_small_disk_open_runs_end_by_the_reserve_and_it_heals(disk: Path) -> None:
    folder = disk / "journal"
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        assert broker.refusing == ""
        assert (folder / BALLAST_NAME).stat().st_size == DISK_BYTES // 16
        story = Story()
        runs = [story.accept(items=2) for _ in range(50)]
        for _, record in story.records:
            broker.write_record(record)
        broker.settle()
        filler = fill(disk, but_bytes=0)
        # Parts of open runs take what room there is, then the reserve; the last ones wait.
        for number, run in enumerate(runs):
            content = value(os.urandom(20_000).hex())
            story.add(TaskDone(run, story.states[run].last, run, 5, "", 0, 1, content))
            broker.write_record(story.records[-1][1])
            broker.exchange(0.01)
            if number == 5:
                broker.until(lambda: broker.refusing)
                assert "no room" in broker.refusing
                assert not (folder / BALLAST_NAME).exists()
        assert broker.acknowledged > story.records[50][0], "the reserve was of use"
        assert broker.backlog, "it was not enough"
        until_tried_again(running, broker, AskStatistics(1))
        assert broker.refusing
        filler.unlink()
        broker.settle()
        broker.until(lambda: not broker.refusing)
        assert (folder / BALLAST_NAME).exists()
        story.end(runs[0], "cancelled")
        broker.write_record(story.records[-1][1])
        broker.settle()
        broker.close()
    whole(folder, len(story.records))


def test_the_reserve_is_for_what_is_asked_about_too(disk: Path) -> None:
    folder = disk / "journal"
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        filler = fill(disk, but_bytes=0)
        content = value(os.urandom(50_000).hex())
        run = broker.write_record(accepted(broker.next_sequence, value=content))
        broker.hurry()
        broker.settle()
        assert isinstance(broker.ask(ReadValue(1, run, run)), FoundValue)
        assert not (folder / BALLAST_NAME).exists()
        filler.unlink()
        broker.close()
    whole(folder, 1)


def test_below_the_floor_new_runs_are_refused_and_open_ones_end(disk: Path) -> None:
    folder = disk / "journal"
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        story = Story()
        run = story.accept()
        broker.write_record(story.records[-1][1])
        broker.settle()
        filler = fill(disk, but_bytes=DISK_BYTES // 40)
        # It looks at the disk when something is committed, once a second.
        for _ in once_and_again("it does not look at the disk"):
            if broker.refusing:
                break
            state = story.states[run]
            story.add(Started(run, state.last, state.attempt + state.begun, 5))
            broker.write_record(story.records[-1][1])
            broker.settle()
            broker.exchange(0.05)
        assert "bytes left besides a reserve" in broker.refusing
        story.end(run)
        broker.write_record(story.records[-1][1])
        broker.settle()
        assert broker.refusing
        filler.unlink()
        broker.until(lambda: not broker.refusing)
        broker.close()
    whole(folder, len(story.records))


def test_a_read_only_disk_is_told_and_can_be_read(disk: Path) -> None:
    folder = disk / "journal"
    with journal(folder) as running:
        broker = running.attach("e1").welcomed()
        broker.write_record(accepted(broker.next_sequence))
        broker.settle()
        broker.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    running = Journal(JournalConfig(folder=str(folder)))
    assert isinstance(running.opened, JournalFailed)
    assert "Read-only file system" in running.opened.message
    assert running.close() == 1
    assert check_folder(folder).records == 1
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


# --- readers ---


def test_a_reader_that_never_ends_hinders_nobody_and_its_death_is_noticed(folder: Path) -> None:
    code = """
import sys; from pathlib import Path
from pronghorn.broker.journal.store import Store
store = Store.open_to_read(Path(sys.argv[1]))
with store.view():
    print(flush=True); input()
"""
    with journal(folder, runs=10) as running:
        broker = running.attach("e1").welcomed()
        story = Story()

        def runs(count: int) -> int:
            """Keep some, of which retention removes most; returns the size of the file then."""
            for _ in range(count):
                run = story.accept(at_ns=time.time_ns())
                story.end(run, at_ns=time.time_ns())
                for _, record in story.records[-2:]:
                    broker.write_record(record)
                broker.settle()
            return int(broker.ask(AskStatistics(1)).file_bytes)

        runs(50)
        steady = runs(100)
        command = [sys.executable, "-c", code, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            held = runs(100)
            assert held > 2 * steady
            reader.send_signal(signal.SIGKILL)
        with lmdb.open(os.fspath(folder), readonly=True) as table:  # `Store` would clear it itself
            for _ in once_and_again("it does not look for dead readers"):  # it does once a second
                listed = {line.split()[0] for line in table.readers().splitlines()}
                if str(reader.pid) not in listed:
                    break
                runs(1)
        runs(20)
        after = runs(1)
        assert runs(100) <= after + 64 * 4096
        broker.close()
    store = Store.open_to_read(folder)
    assert store.other_readers() == []
    store.close()


def test_the_shim_is_compiled_once() -> None:
    if COMPILER is None:
        pytest.skip(NEEDS_COMPILER)
    assert library() == library()
