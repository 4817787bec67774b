"""Mirror of broker/program.py: small programs of our own in the place of broker and template."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from trees import PATIENCE_S

from pronghorn.broker.processes import children
from pronghorn.broker.program import Program
from pronghorn.broker.watcher import Watcher
from pronghorn.broker.wire.control import (
    BrokerFailed,
    ControlMessage,
    Shutdown,
    StartWorker,
    TemplateConfig,
    WorkerReady,
)

PRELUDE = """
import os, sys
from pronghorn.broker.wire.channel import ControlChannel
from pronghorn.broker.wire.control import *
channel = ControlChannel.inherited(int(sys.argv[1]))
(config, _), *received = channel.receive()
"""

# Says the word that its config holds and what it is told then, until the other side is gone.
ECHO = """
channel.send(BrokerFailed(config.modules[0]))
while received is not None:
    for message, _ in received:
        channel.send(message)
    received = channel.receive()
"""
DYING = "channel.send(WorkerReady(1)); channel.send(WorkerReady(2)); os._exit(7)"


class Owner:
    """What the supervisor is to a program: notes what happens."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.messages: list[ControlMessage] = []
        self.exits: list[str] = []
        self.failures: list[str] = []
        self.starts = 0
        self.again = False  # whether it is started again when it has ended
        self.program = Program(
            "played",
            self.watcher,
            configure=self.configure,
            on_message=self.messages.append,
            on_exit=self.on_exit,
            on_failure=self.failures.append,
        )

    def configure(self) -> tuple[TemplateConfig, tuple[int, ...]]:
        self.starts += 1
        config = TemplateConfig(
            modules=(f"start {self.starts}",), sys_path=(), supervisor_pid=0, result_bytes=0
        )
        return config, ()

    def on_exit(self, cause: str) -> None:
        self.exits.append(cause)
        if self.again:
            self.program.start_again()

    def until(self, happened: Callable[[], object]) -> None:
        """Turn the loop until something has happened."""
        deadline = monotonic() + PATIENCE_S
        while not happened():
            assert monotonic() < deadline, "it does not happen"
            self.watcher.turn(deadline)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set what the program does."""
    inherited = os.environ.get("PYTHONPATH")
    path = [str(tmp_path), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # it is written anew within one second

    def write(text: str) -> None:
        (tmp_path / "played.py").write_text(PRELUDE + text)

    return write


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.program.close()
    owner.watcher.wait_for_children(20.0)
    owner.watcher.close()


@pytest.fixture
def descriptors() -> Iterator[Callable[[bool], None]]:
    """Take all free descriptors from this process, and give them back."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []

    def available(yes: bool) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        while fillers:
            os.close(fillers.pop())
        if not yes:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))

    yield available
    available(True)


def test_it_is_given_its_config_first_and_talks(owner: Owner, play: Callable[[str], None]) -> None:
    play(ECHO)
    owner.program.start()
    owner.program.send(WorkerReady(5))
    owner.until(lambda: len(owner.messages) == 2)
    assert owner.messages == [BrokerFailed("start 1"), WorkerReady(5)]


def test_its_last_messages_come_before_its_exit(owner: Owner, play: Callable[[str], None]) -> None:
    play(DYING)
    owner.program.start()
    (pid,) = children()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    owner.until(lambda: owner.exits)
    assert owner.messages == [WorkerReady(1), WorkerReady(2)]
    assert owner.exits == ["exit status 7"]
    owner.program.send(Shutdown())  # to nobody
    owner.program.kill()


def test_one_that_ended_is_started_again_with_a_config_of_its_own(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play(ECHO)
    owner.again = True
    owner.program.start()
    owner.until(lambda: owner.messages)
    owner.program.ready_at = owner.program.started_at
    owner.program.kill()
    owner.until(lambda: len(owner.messages) == 2)
    assert owner.messages == [BrokerFailed("start 1"), BrokerFailed("start 2")]
    assert owner.exits == ["signal 9 (SIGKILL)"]
    assert owner.program.ready_at is None  # of the new one nothing is known yet
    assert not owner.program.exhausted


@pytest.mark.slow
def test_one_that_ends_at_its_start_again_and_again_is_tried_on_but_exhausted(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play("os._exit(7)")
    owner.again = True
    owner.program.start()
    owner.until(lambda: owner.program.exhausted)
    tries = len(owner.exits)
    owner.program.kill()  # nobody: it has ended
    assert tries == owner.starts > 3
    play(ECHO)
    owner.until(lambda: owner.messages)


@pytest.mark.slow
def test_a_start_for_which_something_lacks_is_tried_again_and_told_once(
    owner: Owner,
    play: Callable[[str], None],
    descriptors: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    play(ECHO)
    descriptors(False)
    owner.program.start()
    owner.until(lambda: len(owner.failures) == 3)
    reason = "Too many open files: raise the limit of open files (ulimit -n)"
    assert owner.failures == [reason] * 3
    descriptors(True)
    owner.until(lambda: owner.messages)
    assert [record.getMessage() for record in caplog.records] == [
        f"played can't be started, and is tried again: {reason}"
    ]
    assert owner.exits == []


def test_what_can_not_be_sent_for_want_of_something_is_told(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play(ECHO)
    owner.program.start()
    with pytest.raises(OSError, match="Bad file descriptor"):
        owner.program.send(StartWorker(1), (-1, -1))


def test_closing_the_channel_ends_it_and_its_exit_is_not_told(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play(ECHO)
    owner.program.start()
    owner.until(lambda: owner.messages)
    owner.program.close()
    owner.watcher.wait_for_children(20.0)
    assert owner.exits == []
    assert children() == []


def test_one_that_is_given_up_is_killed_and_its_exit_not_told(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play(ECHO)
    owner.again = True
    owner.program.start()
    owner.until(lambda: owner.messages)
    owner.program.end()
    owner.watcher.wait_for_children(20.0)
    assert children() == []
    assert owner.exits == []
    assert owner.starts == 1


def test_one_that_waits_to_be_started_again_is_not_once_it_was_given_up(
    owner: Owner, play: Callable[[str], None]
) -> None:
    play(DYING)
    owner.again = True
    owner.program.start()
    owner.until(lambda: owner.exits)
    owner.program.end()
    owner.watcher.turn(monotonic() + 0.3)
    assert owner.starts == 1
