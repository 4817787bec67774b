"""Looks at real process trees from outside, and waits for ends without looking again and again."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import monotonic, sleep
from typing import NamedTuple, Self

import pytest

from pronghorn.broker.wire.places import shared_root
from pronghorn.client import Client, Pool

END_S = 1.0
"""Within this time after any death or signal no process and no file may be left."""

PATIENCE_S = 20.0  # of a test that waits for what has to come; shows a hang, is no budget
_LOOK_S = 0.02  # where nobody tells
_OF_A_TREE = 3  # processes that take most of its start: broker, template, and what it forks

FAULTY = str(Path(__file__).parent / "faulty.py")
"""The module of nodes that die, hang and misbehave."""


class Tree(NamedTuple):
    """The processes of a pool at one moment."""

    supervisor: int
    broker: int
    template: int
    workers: tuple[int, ...]

    @classmethod
    def below(cls, supervisor: int) -> Self:
        """Find out who is who among the children of a supervisor."""
        broker = template = 0
        workers: list[int] = []
        for pid in children(supervisor):
            line = command_line(pid)
            if "pronghorn.broker.server" in line:
                broker = pid
            elif "pronghorn.worker" not in line:
                continue  # what a node has started
            elif "pronghorn-slots" in _read(f"/proc/{pid}/maps"):
                workers.append(pid)
            elif "pronghorn.worker.template" in line:
                template = pid
        return cls(supervisor, broker, template, tuple(workers))

    @classmethod
    def of_host(cls, host: int) -> Self:
        """Find the tree of the one pool that a process has started."""
        (supervisor,) = supervisors(host)
        return cls.below(supervisor)

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.supervisor, self.broker, self.template, *self.workers)

    @property
    def memory(self) -> list[Path]:
        """The folders in memory that it has made, among those of all trees of this user."""
        root = shared_root()
        return [] if root is None else list(root.glob(f"{self.supervisor}-*"))


class Running:
    """A pool in this process, one client of it, and its processes."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.client: Client = pool.client()
        self.supervisor = pool._tree.supervisor_pid

    @property
    def tree(self) -> Tree:
        return Tree.below(self.supervisor)

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many are ready: the first calls may come before the second worker is."""
        end = monotonic() + PATIENCE_S
        while sum(one.state == "ready" for one in self.client.admin.workers()) < count:
            if monotonic() > end:
                pytest.fail(f"there are no {count} workers that are ready")
            sleep(_LOOK_S)

    def wait_for_processes(self, count: int) -> None:
        """Wait until there are so many workers, those that start or leave included."""
        end = monotonic() + PATIENCE_S
        while len(workers := self.tree.workers) != count:
            if monotonic() > end:
                pytest.fail(f"there are not {count} workers but {workers}")
            sleep(_LOOK_S)


class Ends:
    """Watches processes, which need not be children, until they end."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds = {os.pidfd_open(pid): pid for pid in pids}

    def wait(self, within_s: float = END_S) -> float:
        """Wait until all have ended and return how many seconds that took; fail after the time."""
        begun = monotonic()
        poll = select.poll()
        for pidfd in self._pidfds:
            poll.register(pidfd, select.POLLIN)
        left = dict(self._pidfds)
        while left:
            ready = poll.poll(max(0.0, begun + within_s - monotonic()) * 1000)
            if not ready:
                alive = ", ".join(f"{pid} ({command_line(pid)})" for pid in left.values())
                pytest.fail(f"alive {within_s} s later: {alive}")
            for pidfd, _ in ready:
                poll.unregister(pidfd)
                del left[pidfd]
        return monotonic() - begun

    def kill(self) -> None:
        """Kill them all; one may end before its turn, by what was done to another."""
        for pidfd in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def close(self) -> None:
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._pidfds.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Host:
    """A program in a session of its own, as a shell would start it in the foreground."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self) -> str:
        """Wait for the next line that it prints."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "it says nothing"
        line = self.process.stdout.readline().decode().rstrip("\n")
        if not line and self.process.poll() is not None and self.process.stderr is not None:
            pytest.fail(f"the host ended: {self.process.stderr.read().decode()}")
        return line

    def told(self, line: str) -> None:
        """Give it a line on standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")

    def interrupt(self) -> None:
        """Do what Ctrl-C does: signal its whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    def rest(self) -> tuple[str, str]:
        """Wait for its end; return what else it has printed and its errors."""
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        return out.decode(), errors.decode()


class Fifo:
    """A named pipe that a node writes to, or that one waits for."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._reader = os.open(path, os.O_RDWR)  # so that neither end blocks in open
        self._read = b""  # not yet given out

    def line(self) -> str:
        """Wait for the next line."""
        while b"\n" not in self._read:
            assert select.select([self._reader], [], [], PATIENCE_S)[0], "nothing was written"
            self._read += os.read(self._reader, 4096)
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        os.close(self._reader)


@contextmanager
def hosting(script: str | Path, *arguments: str) -> Iterator[Host]:
    """Run a host program, given by its path or its text, for the time of a block."""
    program = [str(script)] if isinstance(script, Path) else ["-c", script]
    with subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # or `communicate` would miss what `readline` has read ahead
        start_new_session=True,
    ) as process:
        try:
            yield Host(process)
        finally:
            process.kill()
            process.communicate()


def is_within(took_s: float, budget_s: float) -> bool:
    """Whether something took no longer than it may on a machine with nothing else to do.

    Where others have the cores, all that takes processes is slower, and the budget is larger by as
    much.
    """
    return took_s < budget_s or took_s < budget_s * _slowness()


def _slowness() -> float:
    """How many times longer than one of them runs a tree's processes take to start just now."""
    begun, used = monotonic(), getrusage(RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "import pronghorn.worker.runtime"]
    started = [subprocess.Popen(command) for _ in range(_OF_A_TREE)]
    assert [one.wait() for one in started] == [0] * _OF_A_TREE
    took_s, after = monotonic() - begun, getrusage(RUSAGE_CHILDREN)
    ran_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return took_s * _OF_A_TREE / ran_s


def kill(pids: list[int]) -> None:
    """Kill processes and wait for their ends."""
    with Ends(pids) as ends:
        ends.kill()
        ends.wait(PATIENCE_S)


def journal_of(running: Running) -> int:
    """Find the journal's process."""
    (pid,) = (
        pid
        for pid in children(running.supervisor)
        if "pronghorn.broker.journal.writer" in command_line(pid)
    )
    return pid


def supervisors(host: int) -> list[int]:
    """Return the supervisors that a process has started, from any of its threads."""
    return [pid for pid in children(host) if "pronghorn.broker.supervisor" in command_line(pid)]


def children(pid: int) -> list[int]:
    """Return the children of a process, those that have ended and were not reaped included."""
    return [
        int(child)
        for thread in os.listdir(f"/proc/{pid}/task")
        for child in _read(f"/proc/{pid}/task/{thread}/children").split()
    ]


def unreaped(pid: int, within_s: float = END_S) -> list[int]:
    """Return the children of a process that have ended and that it has not reaped in time."""
    end = monotonic() + within_s  # who watches by a pidfd may hear of an end before the parent
    while (left := _zombies(pid)) and monotonic() < end:
        sleep(_LOOK_S)
    return left


def _zombies(pid: int) -> list[int]:
    return [child for child in children(pid) if _state(child) == "Z"]


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    return os.path.exists(f"/proc/{pid}") and _state(pid) != "Z"


def command_line(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it has ended just now
        return ""
