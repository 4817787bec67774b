"""A `pronghorn serve` with its tree, looked at from outside: what it holds, what it leaves."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from raw_client import HELLO, RawClient
from raw_sockets import RawSockets
from trees import Tree, children, command_line, is_alive, unreaped

from pronghorn.broker.restart import BACKOFF_MAX_S
from pronghorn.client import Client, PronghornError

from .nodes import EFFECTS

WORKERS = 4
START_S = 30.0
END_S = 2.0  # after SIGTERM; the tree's own grace time and kills take less than one
SETTLE_S = 2 * BACKOFF_MAX_S  # for what was left open to end, once nothing goes wrong any more;
# a template that was killed again and again before it was ready comes after the longest back-off
_LOOK_S = 0.05  # nobody tells when a tree has come to rest, so one looks again

SUPPORT = Path(__file__).parents[1]

# As `python -m pronghorn.client.cli`, but whoever starts it takes it along when it is killed.
_SERVE = (
    "import sys\n"
    "from pronghorn.bench.children import die_with_parent\n"
    "die_with_parent()\n"
    "from pronghorn.client.cli import main\n"
    "sys.exit(main())\n"
)

_OF_PROCESS = re.compile(r"^/proc/\d+/")  # which have other numbers after a restart
_NUMBER = re.compile(r":\[\d+\]$")  # socket:[4711], but not anon_inode:[pidfd]
_LOGGED = re.compile(r"[A-Z]+ pronghorn|Traceback")
_ALARM = re.compile(r"(ERROR|CRITICAL) |Traceback")
_KILLED = re.compile(r"the (broker|template) ended with signal 9 \(SIGKILL\)")  # by us


class Census(NamedTuple):
    """What a tree holds when nothing is going on: of each process kinds of descriptors, threads."""

    supervisor: Counter[str]
    broker: Counter[str]
    workers: int
    files: frozenset[str]  # of the runtime folder

    def differences(self, now: "Census") -> list[str]:
        """Say what another census has found more or less than this one."""
        found = []
        for name in ("supervisor", "broker"):
            before, after = getattr(self, name), getattr(now, name)
            more, less = after - before, before - after
            if more or less:
                found.append(f"{name}: {dict(more)} more, {dict(less)} less than at the start")
        if now.workers != self.workers:
            found.append(f"{now.workers} workers, there were {self.workers}")
        if now.files != self.files:
            found.append(f"files: {sorted(now.files)}, there were {sorted(self.files)}")
        return found


class Served:
    """A running tree."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.stderr = folder / "stderr"
        ready = json.loads(_line(process))
        self.endpoint: str = ready["endpoints"][0]
        (self.supervisor,) = children(process.pid)
        self._sockets = RawSockets()
        self._stranger = RawClient(self._sockets, self.endpoint)

    @property
    def tree(self) -> Tree:
        return Tree.below(self.supervisor)

    def children(self) -> list[int]:
        """List the processes that the supervisor watches over."""
        return children(self.supervisor)

    def rest(self, client: Client) -> dict[str, Any]:
        """Wait until all workers are ready and nothing is open; returns the status, or the last.

        From then on the broker watches this process, as it does with all that came by ZeroMQ.

        Raises:
            TimeoutError: It does not come to rest; says what is open.
        """
        end = monotonic() + SETTLE_S
        status: dict[str, Any] = {}
        while monotonic() < end:
            try:
                client.submit("pronghorn.stats", timeout_s=1.0).result()  # both its connections
                status = client.call("pronghorn.stats", timeout_s=1.0)
            except PronghornError as error:
                status = {"error": str(error)}
            if _is_at_rest(status):
                self._greet()
                return status
            sleep(_LOOK_S)
        raise TimeoutError(f"not at rest {SETTLE_S:g} s after the last fault: {status}")

    def _greet(self) -> None:
        self._stranger.send([HELLO, "hello", "rest"])
        self._stranger.receive()

    def census(self) -> Census:
        """Look at what is held now."""
        tree = self.tree
        return Census(
            supervisor=held(tree.supervisor),
            broker=held(tree.broker),
            workers=len(tree.workers),
            files=_files(self.folder / "pronghorn"),
        )

    def differences(self, before: Census) -> list[str]:
        """Say what is held beyond that census, once it does not get less any more."""
        end = monotonic() + SETTLE_S
        while (found := before.differences(self.census())) and monotonic() < end:
            sleep(_LOOK_S)
        left = unreaped(self.supervisor)
        return [*found, *([f"zombies of the supervisor: {left}"] if left else [])]

    def close(self) -> None:
        """Let go of its own connection; the tree goes on."""
        self._sockets.close()

    def broker_rss_mib(self) -> float:
        """Tell how much memory the broker has."""
        return rss_mib(self.tree.broker)

    def end(self) -> list[str]:
        """End the tree; says what is left of it."""
        begun = monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            return [f"`pronghorn serve` goes on {START_S:g} s after SIGTERM"]
        taken = monotonic() - begun
        left = [f"process {pid} is left: {command_line(pid)}" for pid in self._processes()]
        if taken > END_S:
            left.append(f"the end took {taken:.1f} s")
        root = self.folder / "pronghorn"
        files = sorted(str(path) for path in root.rglob("*"))
        return left + [f"file {path} is left" for path in files]

    def _processes(self) -> list[int]:
        """Find all that has come of this tree, wherever it hangs now: by what it was told."""
        mark = f"={self.folder}".encode()
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes() and is_alive(int(name)):
                    found.append(int(name))
            except OSError:  # it has ended just now, or is somebody else's
                continue
        return found

    def complaints(self) -> list[str]:
        """Give what the tree has printed that nobody should ever read, each once."""
        lines = self.stderr.read_text(errors="replace").splitlines()
        found: dict[str, None] = {}
        for index, line in enumerate(lines):
            if _ALARM.match(line) and not _KILLED.search(line):
                rest = takewhile(lambda one: not _LOGGED.match(one), lines[index + 1 :])
                found[" | ".join(map(str.strip, [line, *rest]))] = None
        return list(found)


@contextmanager
def serving(folder: Path, *, effects: Path, workers: int = WORKERS) -> Iterator[Served]:
    """Serve the soak's nodes for the time of a block, below a folder whose path has to be short."""
    nodes = Path(__file__).with_name("nodes.py")
    command = [sys.executable, "-c", _SERVE, "serve", "--json", str(nodes)]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment({"XDG_RUNTIME_DIR": str(folder), EFFECTS: str(effects)}),
            start_new_session=True,
        )
    try:
        with closing(Served(process, folder)) as served:
            yield served
    finally:
        if process.poll() is None:
            process.kill()  # which ends the tree as well
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def environment(more: dict[str, str]) -> dict[str, str]:
    """Make the environment of a process that imports what is here."""
    inherited = {key: value for key, value in os.environ.items() if key != "PRONGHORN_ENDPOINT"}
    path = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
    return inherited | {"PYTHONPATH": path} | more


def rss_mib(pid: int) -> float:
    """Tell how much memory a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def shared_memory() -> frozenset[str]:
    """List what is in /dev/shm, but for the folder that all trees of this user share."""
    return frozenset(os.listdir("/dev/shm")) - {f"pronghorn-{os.getuid()}"}


def wait_until(happened: Callable[[], bool], within_s: float) -> bool:
    """Wait until something is so of which nobody tells; whether it was in time."""
    end = monotonic() + within_s
    while not happened():
        if monotonic() > end:
            return False
        sleep(_LOOK_S)
    return True


def _is_at_rest(status: dict[str, Any]) -> bool:
    workers = status.get("workers", [])
    return (
        "error" not in status
        and status["queued"] == 0
        and len(workers) == WORKERS
        and all(one["state"] == "ready" and not one["held"] for one in workers)
    )


def held(pid: int) -> Counter[str]:
    """Count a process's descriptors by what they are, and its threads."""
    held: Counter[str] = Counter()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            kind = _NUMBER.sub("", os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:  # closed just now
            continue
        held[_OF_PROCESS.sub("/proc/PID/", kind)] += 1
    held["thread"] = len(os.listdir(f"/proc/{pid}/task"))
    return held


def _files(root: Path) -> frozenset[str]:
    return frozenset(str(path.relative_to(root)) for path in root.rglob("*"))


def _line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], START_S)[0]:
        raise TimeoutError("`pronghorn serve` says nothing")
    return process.stdout.readline()
