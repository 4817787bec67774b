"""Mirror of broker/workforce.py: real templates and workers, the broker a small program of ours."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from trees import PATIENCE_S, is_alive

from pronghorn.broker.processes import children
from pronghorn.broker.program import Program
from pronghorn.broker.watcher import Watcher
from pronghorn.broker.wire.control import (
    BrokerFailed,
    ControlMessage,
    Loaded,
    TemplateConfig,
    WorkerForked,
    WorkerReady,
)
from pronghorn.broker.wire.limits import DEFAULT_LIMITS
from pronghorn.broker.workforce import Workforce

_PR_SET_CHILD_SUBREAPER = 36

# Tells when workers are ready, as a broker does, and what it was told of them.
BROKER = """
import select, socket, sys
from pronghorn.broker.wire.channel import ControlChannel
from pronghorn.broker.wire.control import *
channel = ControlChannel.inherited(int(sys.argv[1]))
links = {}
while True:
    for ready in select.select([channel, *links], [], [])[0]:
        if ready is not channel:
            if ready.recv(1000):
                channel.send(WorkerReady(links[ready]))
            else:
                del links[ready]
            continue
        received = channel.receive()
        if received is None:
            sys.exit()
        for message, descriptors in received:
            match message:
                case WorkerStarted(worker_id):
                    links[socket.socket(fileno=descriptors[0])] = worker_id
                case WorkerExited(worker_id, cause, stack):
                    channel.send(BrokerFailed(f"{worker_id}: {cause}\\n{stack}"))
"""

NODE = "import os\nfrom pronghorn.worker import node\n@node\ndef pid() -> int: return os.getpid()\n"


class Tree:
    """A supervisor without a host: its workforce, and what the others have said."""

    def __init__(self, module: Path, *, size: int, start_timeout_s: float) -> None:
        self.module = module
        self.others = set(children())  # of whoever has started some before
        self.watcher = Watcher()
        self.ready: list[int] = []  # ids of workers
        self.ended: list[str] = []  # id and cause, as the broker was told
        self.stacks: list[str] = []  # and with them
        self.template_exits: list[str] = []
        self.stillborn = 0
        self.broker = self._program("played_broker")
        self.template = self._program("pronghorn.worker.template")
        self.workforce = Workforce(
            size,
            self.watcher,
            broker=self.broker,
            template=self.template,
            start_timeout_s=start_timeout_s,
            result_bytes=DEFAULT_LIMITS.result_bytes,
            on_stillborn=self._on_stillborn,
        )
        self.broker.start()
        self.template.start()

    def config(self) -> TemplateConfig:
        return TemplateConfig(
            modules=(str(self.module),),
            sys_path=tuple(sys.path),
            supervisor_pid=os.getpid(),
            result_bytes=DEFAULT_LIMITS.result_bytes,
        )

    def until(self, happened: Callable[[], object]) -> None:
        """Turn the loop until something has happened."""
        deadline = monotonic() + PATIENCE_S
        while not happened():
            assert monotonic() < deadline, "it does not happen"
            self.workforce.tend()
            self.watcher.turn(min(self.workforce.next_due, deadline))

    def until_loaded(self) -> None:
        """Turn the loop until workers can be started, without starting any."""
        self.until(lambda: self.template.ready_at)

    def serve(self) -> None:
        """Turn the loop until all workers are ready and their processes are known."""
        self.until_loaded()
        self.workforce.can_start = True
        self.until(lambda: self.workforce.stands and not self.workforce._forking)

    def pids(self) -> dict[int, int]:
        """Return the processes of workers by their ids."""
        workers = self.workforce._crew.workers.values()
        return {worker.id: worker.pid for worker in workers if worker.pid is not None}

    def close(self) -> None:
        self.workforce.can_start = False
        self.workforce.end_epoch()
        self.until(lambda: not self.workforce._forking)
        self.broker.close()
        self.template.close()
        self.watcher.kill_children()
        self.watcher.wait_for_children(20.0)
        self.watcher.close()

    def _program(self, module: str) -> Program:
        return Program(
            module,
            self.watcher,
            configure=lambda: (self.config(), ()),
            on_message=self._on_message,
            on_exit=self._on_exit,
            on_failure=lambda reason: pytest.fail(reason),
        )

    def _on_message(self, message: ControlMessage) -> None:
        match message:
            case Loaded():
                self.template.ready_at = self.template.started_at
            case WorkerForked(worker_id, pid):
                self.workforce.forked(worker_id, pid)
            case WorkerReady(worker_id):
                self.ready.append(worker_id)
                self.workforce.ready(worker_id)
            case BrokerFailed(text):
                cause, _, stack = text.partition("\n")
                self.ended.append(cause)
                self.stacks.append(stack)

    def _on_exit(self, cause: str) -> None:
        self.template_exits.append(cause)
        self.workforce.can_start = False
        self.workforce.template_ended()
        self.template.start_again()

    def _on_stillborn(self) -> None:
        self.stillborn += 1


Start = Callable[..., Tree]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start trees whose workers become children of this process."""
    (tmp_path / "played_broker.py").write_text(BROKER)
    inherited = os.environ.get("PYTHONPATH")
    path = [str(tmp_path), *([inherited] if inherited else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    trees: list[Tree] = []

    def start_tree(text: str = "", *, size: int = 1, start_timeout_s: float = 30.0) -> Tree:
        module = tmp_path / "shop.py"
        module.write_text(NODE + text)
        trees.append(Tree(module, size=size, start_timeout_s=start_timeout_s))
        return trees[-1]

    yield start_tree
    for tree in trees:
        tree.close()
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
def descriptors() -> Iterator[Callable[[int | None], None]]:
    """Leave this process a number of descriptors, or all that it had."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []

    def leave(count: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        while fillers:
            os.close(fillers.pop())
        if count is not None:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, limits[1]))
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            for _ in range(count):
                os.close(fillers.pop())

    yield leave
    leave(None)


# --- starts and ends ---------------------------------------------------------------------------


def test_a_worker_that_ends_is_told_and_replaced(start: Start) -> None:
    tree = start(size=2)
    tree.serve()
    assert sorted(tree.ready) == [1, 2]
    os.kill(tree.pids()[1], signal.SIGKILL)
    tree.until(lambda: len(tree.ready) == 3 and sorted(tree.pids()) == [2, 3])
    assert tree.ended == ["1: signal 9 (SIGKILL)"]
    assert tree.stillborn == 0


def test_a_worker_is_ended_with_its_stack_for_a_reason_that_is_told(start: Start) -> None:
    tree = start()
    tree.serve()
    tree.workforce.kill(1, "it is not liked")
    tree.workforce.kill(99, "it is not there")
    tree.until(lambda: tree.ended)
    assert tree.ended == ["1: signal 6 (SIGABRT): it is not liked"]
    assert tree.stacks[0].startswith("Fatal Python error: Aborted\n\nCurrent thread ")


def test_a_worker_that_does_not_end_when_it_should_is_killed(start: Start) -> None:
    tree = start()
    tree.serve()
    os.kill(tree.pids()[1], signal.SIGSTOP)
    tree.workforce.kill(1, "it is stuck")
    tree.until(lambda: tree.ended)
    assert tree.ended == ["1: signal 9 (SIGKILL): it is stuck"]


def test_a_worker_that_is_ready_before_its_process_is_known_may_be_killed(start: Start) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.workforce.tend()
    tree.workforce.ready(1)
    tree.workforce.kill(1, "too late")
    tree.until(lambda: tree.ended)
    assert tree.ended == ["1: signal 9 (SIGKILL): too late"]
    assert tree.template_exits == []


def test_a_worker_may_be_killed_before_its_process_is_known(start: Start) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.broker.kill(signal.SIGSTOP)  # so that it does not tell that the worker is ready
    tree.workforce.tend()
    tree.workforce.kill(1, "too late")
    tree.until(lambda: tree.stillborn)
    assert tree.workforce.last_failure == (
        "workers end before they are ready, the last with signal 9 (SIGKILL): too late"
    )
    tree.broker.kill(signal.SIGCONT)
    tree.until(lambda: tree.ended)
    assert tree.ended == ["1: signal 9 (SIGKILL): too late"]
    assert tree.template_exits == []


def test_workers_are_spawned_where_they_must_not_be_forked(start: Start) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.prepare(spawn=tree.config(), start_timeout_s=30.0)
    tree.serve()
    command = Path(f"/proc/{tree.pids()[1]}/cmdline").read_bytes().split(b"\0")
    assert b"pronghorn.worker.spawned" in command


def test_an_epoch_s_end_is_the_end_of_its_workers(start: Start) -> None:
    tree = start(size=2)
    tree.serve()
    pids = tree.pids()
    tree.workforce.end_epoch()
    assert not any(is_alive(pid) for pid in pids.values())
    tree.serve()
    assert sorted(tree.pids()) == [3, 4]


def test_a_worker_forked_when_its_epoch_has_ended_is_ended(start: Start) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.workforce.tend()
    tree.workforce.end_epoch()
    tree.workforce.can_start = False
    tree.until(lambda: not tree.workforce._forking)
    assert tree.pids() == {}
    assert len(set(children()) - tree.others) == 2  # broker and template


def test_workers_whose_template_ended_before_it_forked_them_are_asked_of_the_next(
    start: Start,
) -> None:
    tree = start(size=2)
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.template.kill()
    os.waitid(os.P_PID, tree.template._pid, os.WEXITED | os.WNOWAIT)
    tree.workforce.tend()  # to nobody
    tree.until(lambda: tree.template_exits)
    assert tree.pids() == {}
    tree.serve()
    assert sorted(tree.ended) == [
        f"{worker_id}: its template ended before it was forked" for worker_id in (1, 2)
    ]
    assert sorted(tree.pids()) == [3, 4]


def test_what_nodes_leave_behind_is_reaped_but_no_worker_unseen(start: Start) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.workforce.tend()
    stray = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, stray, os.WEXITED | os.WNOWAIT)
    tree.watcher.reap_others()
    assert stray in children()  # it may be the worker that was asked for
    tree.serve()
    assert stray not in children()


# --- what the system lacks ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spawned", [False, True])
@pytest.mark.parametrize("left", [0, 2, 4])
def test_a_start_for_which_descriptors_lack_is_tried_again_and_told_once(
    start: Start,
    descriptors: Callable[[int | None], None],
    caplog: pytest.LogCaptureFixture,
    left: int,
    spawned: bool,
) -> None:
    """A page, a link of two ends, and the process: wherever it fails, nothing stays behind."""
    tree = start()
    tree.until_loaded()
    if spawned:
        tree.workforce.prepare(spawn=tree.config(), start_timeout_s=30.0)
    tree.workforce.can_start = True
    descriptors(left)
    if left < 3 or spawned:
        tree.until(lambda: len(tree.ended) == 2)  # tried again, in vain
        lack = "no worker can be started: Too many open files: raise the limit"
        (told,) = (one for one in caplog.messages if one.startswith(lack))
        assert told.endswith("; it is tried again")
        assert tree.workforce.last_failure in told
        assert tree.ended == ["1: it could not be started", "2: it could not be started"]
    descriptors(None)
    tree.serve()
    assert tree.stillborn == 0


def test_a_forked_worker_that_can_not_be_watched_is_ended_and_tried_again(
    start: Start, descriptors: Callable[[int | None], None]
) -> None:
    tree = start()
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.workforce.tend()  # takes effect in the template
    descriptors(0)
    tree.until(lambda: tree.ended)
    assert tree.ended == ["1: it could not be started"]
    assert len(set(children()) - tree.others) == 2  # broker and template
    descriptors(None)
    tree.serve()
    assert tree.ready[-1] > 1


# --- starts that hang --------------------------------------------------------------------------

HANG = """
import signal, time
template = os.getpid()
def hang():
    is_worker = os.getppid() != template
    if is_worker == {worker} and os.path.exists({once!r}):
        os.unlink({once!r})
        {prepare}
        time.sleep(1000)
os.register_at_fork(after_in_child=hang)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "how"),
    [
        ("pass", "signal 6 (SIGABRT)"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])", "signal 9 (SIGKILL)"),
    ],
)
def test_a_worker_that_hangs_at_its_start_is_ended_with_its_stack(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str], prepare: str, how: str
) -> None:
    once = tmp_path / "once"
    once.touch()
    text = HANG.format(worker=True, once=str(once), prepare=prepare)
    tree = start(text, start_timeout_s=0.5)
    tree.serve()
    assert tree.ended == [f"1: {how}: it was not ready after 0.5 s"]
    assert tree.stillborn == 1
    assert tree.ready == [2]
    assert ("in hang\n" in capfd.readouterr().err) == (how == "signal 6 (SIGABRT)")


@pytest.mark.slow
def test_a_template_that_hangs_as_it_forks_is_ended_with_its_stack(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    once = tmp_path / "once"
    once.touch()
    text = HANG.format(worker=False, once=str(once), prepare="os.write(1, b'%d' % os.getpid())")
    tree = start(text, start_timeout_s=0.5)
    tree.until_loaded()
    tree.workforce.can_start = True
    tree.until(lambda: tree.template_exits)
    assert tree.template_exits == ["signal 6 (SIGABRT)"]
    out, errors = capfd.readouterr()
    os.kill(int(out), signal.SIGKILL)  # the process in between is nobody's concern any more
    os.waitpid(int(out), 0)
    assert 'template.py", line' in errors
    assert "in _fork" in errors
    tree.serve()
    assert tree.ended == ["1: its template ended before it was forked"]
