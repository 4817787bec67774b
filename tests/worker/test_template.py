"""Mirror of worker/template.py: a template as a process, its supervisor played here."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from broker_ends import PATIENCE_S, BrokerEnd, run_call
from trees import Ends, command_line

from pronghorn.broker.processes import reap, spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    ControlMessage,
    Loaded,
    StartWorker,
    TemplateConfig,
    WorkerForked,
)

_PR_SET_CHILD_SUBREAPER = 36

NODES = """
import os, sys
from pronghorn.worker import node
@node
def add(a: int, b: int) -> int: return a + b
@node
def pid() -> int: return os.getpid()
@node
def parent() -> int: return os.getppid()
@node
def say(word: str) -> None: print(word)
"""


@pytest.fixture(autouse=True)
def _adopts_orphans() -> Iterator[None]:
    """Have workers become children of this process, as they become the supervisor's."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


class Template:
    """A template process and the supervisor's end of its channel."""

    def __init__(
        self, *modules: str, output: int | None = None, log_level: str = "WARNING"
    ) -> None:
        self.channel, self.pid = started("pronghorn.worker.template", output=output)
        self.channel.send(
            TemplateConfig(
                modules=modules,
                sys_path=tuple(sys.path),
                supervisor_pid=os.getpid(),
                result_bytes=1_000_000,
                log_level=log_level,
            )
        )
        self._received: list[ControlMessage] = []

    def message(self) -> ControlMessage:
        while not self._received:
            received = self.channel.receive()
            assert received is not None, "the template has ended"
            self._received += [message for message, _ in received]
        return self._received.pop(0)

    def loaded(self) -> Loaded:
        message = self.message()
        assert isinstance(message, Loaded)
        return message

    def fork(self, worker_id: int, end: BrokerEnd) -> int:
        """Have it fork a worker and return the process of that."""
        self.channel.send(StartWorker(worker_id), (end.link_fd, end.page_fd))
        end.give_away()
        message = self.message()
        assert isinstance(message, WorkerForked)
        assert message.worker_id == worker_id
        return message.pid

    def close(self) -> str:
        """Go, as a supervisor does, and return how the template ended."""
        self.channel.close()
        return reap(self.pid)


def started(module: str, *, output: int | None = None) -> tuple[ControlChannel, int]:
    """Start a program with a channel to it, whose descriptor is its argument."""
    ours, theirs = make_pair()
    ours.settimeout(PATIENCE_S)
    with theirs:
        if output is None:
            pid = spawn_module(module, [str(theirs.fileno())], [theirs.fileno()])
        else:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdout=subprocess.DEVNULL,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env={
                    name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
                },
            )
            process.returncode = 0  # it is ours to reap
            pid = process.pid
    return ControlChannel(ours), pid


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    path = tmp_path / "shop.py"
    path.write_text(NODES)
    return str(path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_it_tells_what_the_modules_hold(nodes: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0\n")
    template = Template(nodes, str(bad))
    loaded = template.loaded()
    assert [node.name for node in loaded.table.nodes] == [
        "shop.add",
        "shop.pid",
        "shop.parent",
        "shop.say",
        "pronghorn.nodes",
        "pronghorn.run",
        "pronghorn.follow",
        "pronghorn.workflow",
        "pronghorn.control",
    ]
    (failure,) = loaded.failures
    assert failure.module == str(bad)
    assert failure.reason.startswith("ZeroDivisionError: division by zero\nTraceback")
    assert loaded.unsafe == ()
    assert template.close() == "exit status 0"


def test_workers_are_children_of_the_supervisor_and_serve(nodes: str, stack: ExitStack) -> None:
    template = Template(nodes)
    digest = template.loaded().table.digest
    ends = [stack.enter_context(BrokerEnd()) for _ in range(3)]
    pids = [template.fork(10 + i, end) for i, end in enumerate(ends)]
    for i, end in enumerate(ends):
        ready = end.ready()
        assert (ready.worker_id, ready.pid, ready.table_digest) == (10 + i, pids[i], digest)
        end.send(run_call(1, 2))
        assert end.value() == (1, os.getpid())
    stack.close()
    assert [reap(pid) for pid in pids] == ["exit status 0"] * 3
    assert template.close() == "exit status 0"


def test_a_template_that_is_killed_harms_no_worker(nodes: str) -> None:
    template = Template(nodes)
    template.loaded()
    with BrokerEnd() as end:
        pid = template.fork(1, end)
        end.ready()
        os.kill(template.pid, signal.SIGKILL)
        assert template.close() == "signal 9 (SIGKILL)"
        end.send(run_call(1, 1))
        assert end.value() == (1, pid)
    assert reap(pid) == "exit status 0"


def test_a_worker_holds_nothing_of_the_template(nodes: str) -> None:
    template = Template(nodes)
    template.loaded()
    with BrokerEnd() as first, BrokerEnd() as second:
        pids = [template.fork(1, first), template.fork(2, second)]
        first.ready(), second.ready()
        first.socket.close()  # the other worker does not hold it open
        assert reap(pids[0]) == "exit status 0"
        targets = {
            os.readlink(f"/proc/{pids[1]}/fd/{fd}") for fd in os.listdir(f"/proc/{pids[1]}/fd")
        }
        channel = os.readlink(f"/proc/{template.pid}/fd/{channel_of(template.pid)}")
        assert channel not in targets
    assert reap(pids[1]) == "exit status 0"
    template.close()


def channel_of(pid: int) -> str:
    """Return the descriptor that a program was given as its argument."""
    return command_line(pid).split()[-1]


def test_what_is_printed_appears_at_once_and_once(nodes: str, tmp_path: Path) -> None:
    talkative = tmp_path / "talkative.py"
    talkative.write_text("print('imported', end='')\n")
    reader, writer = os.pipe()
    template = Template(nodes, str(talkative), output=writer)
    os.close(writer)
    template.loaded()
    with BrokerEnd() as end:
        pid = template.fork(1, end)
        end.ready()
        end.send(run_call(1, 3, "spoken"))
        end.message()
        told = os.read(reader, 1000).decode().splitlines()
        assert [line.split(" ", 1)[1] for line in told] == [
            f"INFO template[{template.pid}] stdout: imported",
            f"INFO worker-1[{pid}] shop.say#1 stdout: spoken",
        ]
        os.kill(pid, signal.SIGKILL)
        reap(pid)
    template.close()
    assert os.read(reader, 1000) == b""
    os.close(reader)


def test_a_fork_that_fails_ends_the_template_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "barren.py"
    path.write_text(
        NODES + "real_fork, first = os.fork, os.getpid()\n"
        "def fork():\n"
        "    if os.getpid() != first: raise OSError(11, 'no more processes')\n"
        "    return real_fork()\n"
        "os.fork = fork\n"
    )
    template = Template(str(path))
    template.loaded()
    with BrokerEnd() as end:
        template.channel.send(StartWorker(1), (end.link_fd, end.page_fd))
        end.give_away()
        end.wait_for_end()
    assert template.channel.receive() is None
    assert template.close() == "exit status 1"


def test_modules_may_ignore_the_end_of_children(tmp_path: Path) -> None:
    path = tmp_path / "careless.py"
    path.write_text(NODES + "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    template = Template(str(path))
    template.loaded()
    with BrokerEnd() as end:
        pid = template.fork(1, end)
        end.ready()
        end.send(run_call(1, 0, 1, 2))
        assert end.value() == (1, 3)
    assert reap(pid) == "exit status 0"
    assert template.close() == "exit status 0"


def test_modules_are_imported_from_the_path_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "by_name.py").write_text(NODES)
    monkeypatch.syspath_prepend(str(tmp_path))
    template = Template("by_name")
    assert template.loaded().table.nodes[0].name == "by_name.add"
    template.close()


@pytest.mark.parametrize("module", ["pronghorn.worker.template", "pronghorn.worker.spawned"])
def test_without_a_supervisor_it_does_not_start(module: str) -> None:
    ours, theirs = make_pair()
    with theirs:
        given = [theirs.fileno()]
        arguments = [str(theirs.fileno())]
        if module.endswith("spawned"):
            arguments = ["1", arguments[0], arguments[0], arguments[0]]
        pid = spawn_module(module, arguments, given)
    ours.close()
    assert reap(pid) == "exit status 1"


def test_an_end_of_the_supervisor_while_it_imports_is_no_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = tmp_path / "slow.py"
    path.write_text(NODES + f"open({str(fifo)!r}).read()\n")
    template = Template(str(path))
    with open(fifo, "w"):
        template.channel.close()
    assert reap(template.pid) == "exit status 0"
    assert capfd.readouterr().err == ""


PARENT = """
import os, sys
from pronghorn.broker.processes import spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import StartWorker, TemplateConfig
from pronghorn.broker.wire.linux import become_subreaper
become_subreaper()
ours, theirs = make_pair()
pid = spawn_module("pronghorn.worker.template", [str(theirs.fileno())], [theirs.fileno()])
channel = ControlChannel(ours)
channel.send(TemplateConfig(modules=(sys.argv[1],), sys_path=tuple(sys.path),
    supervisor_pid=os.getpid(), result_bytes=10000))
channel.receive()
link, link_theirs = make_pair()
page = os.memfd_create("page")
os.ftruncate(page, 10**6)
channel.send(StartWorker(1), (link_theirs.fileno(), page))
((forked, _),) = channel.receive()
link.recv(1)
print(pid, forked.pid, flush=True)
sys.stdin.read()
"""


def test_the_kernel_ends_both_with_the_supervisor(nodes: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, nodes], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        with Ends(pids) as ends:
            parent.kill()
            ends.wait()
    for pid in pids:  # they are ours now
        os.waitpid(pid, 0)
