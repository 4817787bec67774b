"""Mirror of broker/supervisor.py: a supervisor as a process, its host played here.

What becomes of a tree when one of its processes dies is tested in tests/fault/.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trees import FAULTY, PATIENCE_S, Ends, Tree

from pronghorn.broker.folder import RuntimeFolder
from pronghorn.broker.processes import reap, spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    ControlMessage,
    DrainPool,
    PoolConfig,
    PoolFailed,
    PoolReady,
    Shutdown,
)
from pronghorn.client import Client, WorkerLostError

# A supervisor that can open only so many descriptors besides those that it begins with.
SHORT_OF_DESCRIPTORS = """
import os, resource, sys
from pronghorn.broker import supervisor
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
highest = max(int(name) for name in os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
try:
    while True:
        os.dup(0)
except OSError:
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + int(sys.argv[2]), hard))
sys.exit(supervisor.main())
"""


class Supervisor:
    """A supervisor process and the host's end of its channel."""

    def __init__(self, *, descriptors: int | None = None) -> None:
        ours, theirs = make_pair()
        ours.settimeout(PATIENCE_S)
        with theirs:
            channel = theirs.fileno()
            if descriptors is None:
                self.pid = spawn_module("pronghorn.broker.supervisor", [str(channel)], [channel])
            else:
                arguments = [SHORT_OF_DESCRIPTORS, str(channel), str(descriptors)]
                os.set_inheritable(channel, True)
                self.pid = os.posix_spawn(
                    sys.executable, [sys.executable, "-P", "-c", *arguments], os.environ
                )
        self.channel = ControlChannel(ours)

    def configure(self, folder: Path, **changes: Any) -> None:
        config: dict[str, Any] = {
            "modules": (FAULTY,),
            "sys_path": tuple(sys.path),
            "workers": 2,
            "folder": str(folder),
            "host_pid": os.getpid(),
        }
        self.channel.send(PoolConfig(**config | changes))

    def message(self) -> ControlMessage:
        """Wait for the next message to the host."""
        while True:
            received = self.channel.receive()
            assert received is not None, "the supervisor has ended"
            if received:
                ((message, _),) = received
                return message

    def ready(self) -> PoolReady:
        message = self.message()
        assert isinstance(message, PoolReady), message
        return message

    def close(self) -> str:
        """Go, as a host does, and return how the supervisor ended."""
        self.channel.close()
        return reap(self.pid)


@pytest.fixture
def folder() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(dir="/tmp"))
    yield base / "root" / "shop"
    left = [str(path) for path in (base / "root").rglob("*")]
    shutil.rmtree(base)
    assert left == [], "files are left behind"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.close()


def test_the_host_is_told_when_all_workers_are_ready(folder: Path, supervisor: Supervisor) -> None:
    supervisor.configure(folder)
    ready = supervisor.ready()
    assert ready.endpoints == (f"ipc://{folder}/broker.sock",)
    assert "faulty.add" in ready.table.names()
    assert (ready.failures, ready.warnings) == ((), ())
    tree = Tree.below(supervisor.pid)
    assert len(tree.workers) == 2
    assert 0 not in tree.pids


@pytest.mark.parametrize("way", ["shutdown", "end of channel", "SIGTERM", "SIGINT"])
def test_it_ends_when_told(folder: Path, way: str) -> None:
    supervisor = Supervisor()
    supervisor.configure(folder)
    supervisor.ready()
    with Ends(Tree.below(supervisor.pid).pids) as ends:
        match way:
            case "shutdown":
                supervisor.channel.send(Shutdown())
            case "end of channel":
                supervisor.channel.close()
            case name:
                os.kill(supervisor.pid, signal.Signals[name])
        ends.wait()
    assert supervisor.close() == "exit status 0"
    assert not folder.exists()


def test_the_end_of_the_host_s_process_is_the_end_whoever_holds_the_channel(folder: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as host:
        supervisor = Supervisor()
        supervisor.configure(folder, host_pid=host.pid)
        supervisor.ready()
        with Ends(Tree.below(supervisor.pid).pids) as ends:
            host.kill()
            ends.wait()
    assert reap(supervisor.pid) == "exit status 0"
    supervisor.channel.close()


def test_a_host_that_has_ended_already_gets_no_tree(folder: Path) -> None:
    host = subprocess.Popen(["true"])
    host.wait()
    supervisor = Supervisor()
    supervisor.configure(folder, host_pid=host.pid)
    assert reap(supervisor.pid) == "exit status 0"
    supervisor.channel.close()


@pytest.mark.parametrize("first", [None, Shutdown()])
def test_a_host_that_gives_up_before_its_config_gets_no_tree(first: Shutdown | None) -> None:
    supervisor = Supervisor()
    if first is not None:
        supervisor.channel.send(first)
    assert supervisor.close() == "exit status 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": (99_999,)}, "can't use CPUs (99999,): "),
        ({"endpoints": ("ipc:///nowhere/x.sock",)}, "can't make the lock file of /nowhere/x.sock"),
        ({"endpoints": ("tcp://1.2.3.4:5",)}, "tcp://1.2.3.4:5 can be reached from the network"),
        ({"modules": ("/nowhere/at_all.py",)}, "no node can be served from /nowhere/at_all.py"),
    ],
)
def test_it_says_why_it_can_not_serve(folder: Path, changes: dict[str, Any], message: str) -> None:
    supervisor = Supervisor()
    supervisor.configure(folder, **changes)
    failed = supervisor.message()
    assert isinstance(failed, PoolFailed)
    assert failed.message.startswith(message)
    assert supervisor.channel.receive() is None
    assert supervisor.close() == "exit status 1"


def test_a_held_folder_is_left_to_its_holder(folder: Path) -> None:
    holder = RuntimeFolder(folder)
    supervisor = Supervisor()
    supervisor.configure(folder)
    failed = supervisor.message()
    assert isinstance(failed, PoolFailed)
    assert failed.message.startswith(f"another broker (pid {os.getpid()}) serves in {folder}")
    assert supervisor.close() == "exit status 1"
    assert folder.exists()
    holder.remove()


def test_all_processes_are_restricted_to_the_cpus(folder: Path, supervisor: Supervisor) -> None:
    cpu = min(os.sched_getaffinity(0))
    supervisor.configure(folder, cpus=(cpu,))
    supervisor.ready()
    for pid in Tree.below(supervisor.pid).pids:
        assert os.sched_getaffinity(pid) == {cpu}


def test_stale_folders_of_pools_are_removed_by_the_next(
    folder: Path, supervisor: Supervisor
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    folder.parent.mkdir(mode=0o700)
    stale = folder.parent / f"pool-{ended.pid}-abcd"
    stale.mkdir(mode=0o700)
    (stale / "broker.sock").touch()
    supervisor.configure(folder)
    supervisor.ready()
    assert not stale.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("descriptors", "what"),
    [
        # Two lock files, an epoll, the host's pidfd and two for signals are all it has.
        (6, "the (broker|template) can't be started"),
        (9, "the template can't be started"),
        (11, "no worker can be started"),
    ],
)
def test_a_start_for_which_something_lacks_fails_after_some_tries(
    folder: Path, descriptors: int, what: str
) -> None:
    supervisor = Supervisor(descriptors=descriptors)
    supervisor.configure(folder)
    failed = supervisor.message()
    assert isinstance(failed, PoolFailed)
    advice = r"Too many open files: raise the limit of open files \(ulimit -n\)"
    assert re.fullmatch(f"{what}: {advice}", failed.message)
    assert supervisor.close() == "exit status 1"


ONE_ONLY = """
import os
from pronghorn.worker import node
@node
def add(a: int, b: int) -> int: return a + b
template = os.getpid()
def first_come_first_served():
    if os.getppid() != template:
        try:
            os.close(os.open({path!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            os._exit(9)
os.register_at_fork(after_in_child=first_come_first_served)
"""


@pytest.mark.slow
def test_a_tree_of_which_some_workers_can_not_be_started_serves_with_the_others(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "shy.py"
    module.write_text(ONE_ONLY.format(path=str(tmp_path / "taken")))
    supervisor = Supervisor()
    supervisor.configure(folder, modules=(str(module),), workers=3)
    supervisor.ready()
    assert len(Tree.below(supervisor.pid).workers) == 1
    supervisor.close()
    assert (
        "only 1 of 3 workers are ready, others are tried again: "
        "workers end before they are ready, the last with exit status 9"
    ) in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("spawned", [False, True])
def test_workers_that_hang_at_their_start_fail_the_start_with_their_stack(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], spawned: bool
) -> None:
    text = (
        "import os, sys, threading, time\n"
        "from pronghorn.worker import node\n"
        "@node\n"
        "def add(a: int, b: int) -> int: return a + b\n"
        "template = os.getpid()\n"
        "def hang_around():\n"
        "    if os.getppid() != template: time.sleep(1000)\n"
    )
    if spawned:
        text += "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        text += "if 'pronghorn.worker.spawned' in sys.orig_argv: hang_around()\n"
    else:
        text += "os.register_at_fork(after_in_child=hang_around)\n"
    module = tmp_path / "hung.py"
    module.write_text(text)
    supervisor = Supervisor()
    # One worker: the stacks of two that end at once would be mixed in the one output.
    supervisor.configure(folder, modules=(str(module),), start_timeout_s=0.5, workers=1)
    failed = supervisor.message()
    assert supervisor.close() == "exit status 1"
    assert isinstance(failed, PoolFailed)
    assert failed.message.startswith(
        "workers end before they are ready, the last with signal 6 (SIGABRT): it was not ready "
    )
    errors = capfd.readouterr().err
    assert "Fatal Python error: Aborted" in errors
    assert "in hang_around\n" in errors


@pytest.mark.slow
def test_a_broker_that_holds_the_lock_on_keeps_others_out(folder: Path) -> None:
    """A killed supervisor's broker removes the files; nobody may have come into them before."""
    supervisor = Supervisor()
    supervisor.configure(folder)
    supervisor.ready()
    tree = Tree.below(supervisor.pid)
    os.kill(tree.broker, signal.SIGSTOP)
    os.kill(tree.supervisor, signal.SIGKILL)
    assert supervisor.close() == "signal 9 (SIGKILL)"
    second = Supervisor()
    second.configure(folder)
    failed = second.message()
    assert isinstance(failed, PoolFailed)
    assert failed.message.startswith("another broker")
    second.close()
    with Ends([tree.broker]) as ends:
        os.kill(tree.broker, signal.SIGCONT)
        ends.wait()
    third = Supervisor()
    third.configure(folder)
    third.ready()
    third.close()


@pytest.mark.slow
def test_a_replaced_worker_that_does_not_end_in_time_is_killed(
    folder: Path, supervisor: Supervisor
) -> None:
    supervisor.configure(folder, workers=1, retire_s=0.2)
    ready = supervisor.ready()
    (worker,) = Tree.below(supervisor.pid).workers
    with Client(ready.endpoints[0]) as client, Ends([worker]) as ends:
        begun = client.submit("nap", 1000.0)
        while not client.admin.workers()[0].in_flight:
            pass  # each question is a round trip
        assert client.admin.recycle().recycled == 1
        ends.wait(PATIENCE_S)
        error = begun.exception(PATIENCE_S)
        assert isinstance(error, WorkerLostError)
        assert "it had not ended 0.2 s after it was told to" in error.cause
        assert client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_told_to_drain_it_ends_when_nothing_is_open(folder: Path, supervisor: Supervisor) -> None:
    supervisor.configure(folder, drain_s=1000.0)
    ready = supervisor.ready()
    with Ends(Tree.below(supervisor.pid).pids) as ends, Client(ready.endpoints[0]) as client:
        open_ = client.submit("nap", 0.3)
        while not sum(worker.in_flight for worker in client.admin.workers()):
            pass
        supervisor.channel.send(DrainPool())
        assert open_.exception(PATIENCE_S) is None
        ends.wait(PATIENCE_S)
