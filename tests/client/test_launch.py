"""Mirror of client/launch.py: the supervisor is played here where that tells as much as a tree."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import client_nodes
import pytest
from trees import Ends, Tree

from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    ControlMessage,
    Loaded,
    ModuleFailure,
    PoolConfig,
    PoolFailed,
    PoolReady,
    PoolReloaded,
    Shutdown,
)
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.table import NodeInfo, NodeTable
from pronghorn.client import BrokerLostError, InvalidArgumentError, launch
from pronghorn.client.launch import PoolStartError, ProcessTree
from pronghorn.client.supervisor import StartedSupervisor

TABLE = NodeTable((NodeInfo("shop.add", "inline"),), "digest")
FOLDER = Path("/tmp/nowhere/shop")
FAILURE = ModuleFailure("broken", "SyntaxError: no\nTraceback …")


def ready(epoch: str) -> PoolReady:
    return PoolReady((f"ipc:///{epoch}",), epoch, TABLE, ())


class Played:
    """A supervisor played by the test: what it says is there before it is asked."""

    def __init__(self, *messages: ControlMessage) -> None:
        self._ours, theirs = make_pair()
        self.channel = ControlChannel(self._ours)
        for message in messages:
            self.channel.send(message)
        process = subprocess.Popen(["true"])
        process.wait()
        self.started = StartedSupervisor(process, theirs)

    def told(self) -> list[ControlMessage]:
        """Return what it was told so far."""
        self._ours.setblocking(False)
        messages: list[ControlMessage] = []
        with suppress(BlockingIOError):
            while (received := self.channel.receive()) is not None:
                messages += [message for message, _ in received]
        return messages


@pytest.fixture
def play() -> Iterator[Callable[..., Played]]:
    played: list[Played] = []

    def play_supervisor(*messages: ControlMessage) -> Played:
        played.append(Played(*messages))
        return played[-1]

    yield play_supervisor
    for one in played:
        one.channel.close()


Play = Callable[..., Played]


def launched(played: Played, **options: Any) -> ProcessTree:
    options = {"workers": 2, "folder": FOLDER} | options
    return ProcessTree(["nodes.py"], supervisor=played.started, **options)


# --- what the supervisor is told ---------------------------------------------------------------


def test_the_supervisor_is_told_all_there_is_to_know(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", "/usr/lib"])
    played = play(ready("e1"))
    tree = ProcessTree(
        [Path("nodes.py"), "shop"],
        workers=3,
        folder=FOLDER,
        endpoints=["tcp://127.0.0.1:0"],
        cpus=range(2),
        limits=Limits(grant_requests=7),
        log_level="INFO",
        supervisor=played.started,
    )
    tree.close()
    config, shutdown = played.told()
    assert config == PoolConfig(
        modules=("nodes.py", "shop"),
        sys_path=(str(tmp_path), str(tmp_path / "lib"), "/usr/lib"),
        workers=3,
        folder=str(FOLDER),
        endpoints=("tcp://127.0.0.1:0",),
        cpus=(0, 1),
        limits=Limits(grant_requests=7),
        host_pid=os.getpid(),
        log_level="INFO",
    )
    assert shutdown == Shutdown()


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [((), len(os.sched_getaffinity(0))), ((7,), 1), ((3, 4, 5, 6, 7), 5), ((1, 1, 2), 2)],
)
def test_there_are_as_many_workers_as_cpus_if_none_says_otherwise(
    play: Play, cpus: tuple[int, ...], workers: int
) -> None:
    played = play(ready("e1"))
    tree = launched(played, workers=None, cpus=cpus)
    assert tree.workers == workers
    tree.close()
    config = played.told()[0]
    assert isinstance(config, PoolConfig)
    assert config.workers == workers
    assert config.cpus == cpus


@pytest.mark.parametrize(
    ("modules", "options", "message"),
    [
        ([], {}, "name at least one module"),
        (["nodes.py"], {"workers": 0}, "workers is 0; a pool needs at least 1"),
        (["nodes.py"], {"workers": 10_000}, "a pool has at most 1000, for each takes"),
        (["nodes.py"], {"recycle_requests": 0}, "recycle_requests is 0; it must be above 0"),
        (["nodes.py"], {"recycle_age_s": -1.0}, "recycle_age_s is -1.0; it must be above 0"),
        (["nodes.py"], {"recycle_memory": -5}, "recycle_memory is -5; it must be above 0"),
        (["nodes.py"], {"recycle_requests": 1.5}, "Expected `int`, got `float`"),
        (["nodes.py"], {"drain_s": -1.0}, "drain_s is -1.0; it must be 0 or more"),
        (["nodes.py"], {"drain_s": float("nan")}, "drain_s is nan; it must be 0 or more"),
        (["nodes.py"], {"workers": 1.5}, "Expected `int`, got `float` - at `$.workers`"),
        (["nodes.py"], {"cpus": ["a"]}, r"Expected `int`, got `str` - at `$.cpus[0]`"),
        (["nodes.py"], {"cpus": [2**70]}, "can't start a pool"),
        (["nodes.py"], {"labels": ["gpu"]}, "labels is ['gpu']: give how many workers have each"),
        (["nodes.py"], {"labels": {"a b": 1}}, "'a b' is no label"),
        (["nodes.py"], {"labels": {"gpu": 3}}, "3 workers should have the label gpu: give 1 to 2"),
        (["nodes.py"], {"endpoints": ["tcp://1.2.3.4:5"]}, "can be reached from the network"),
        (["nodes.py"], {"endpoints": ["carrier-pigeon"]}, "carrier-pigeon"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, modules: list[str], options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(InvalidArgumentError) as caught:
        ProcessTree(modules, **({"workers": 2, "folder": FOLDER} | options))
    assert message in str(caught.value)


# --- what it answers ---------------------------------------------------------------------------


def test_news_of_new_epochs_and_of_the_end(play: Play) -> None:
    played = play(ready("e1"))
    tree = launched(played)
    assert tree.ready == ready("e1")
    played.channel.send(ready("e2"))
    assert tree.read_news() == [ready("e2")]
    assert tree.ready == ready("e2")
    played.channel.close()
    assert tree.read_news() is None
    tree.close()
    assert tree.exit_status == 0
    tree.close()


def test_a_start_that_fails_says_why(play: Play) -> None:
    with pytest.raises(PoolStartError) as caught:
        launched(play(PoolFailed("no node can be served", (FAILURE,))))
    assert caught.value.failures == (FAILURE,)
    assert str(caught.value) == "no node can be served\n\nbroken: SyntaxError: no\nTraceback …"


def test_a_supervisor_that_ends_without_a_word_is_lost(play: Play) -> None:
    played = play()
    played.channel.close()
    with pytest.raises(BrokerLostError, match="ended with status 0 before it was ready"):
        launched(played)


def test_what_is_not_for_the_host_is_passed_over(play: Play) -> None:
    tree = launched(play(Loaded(TABLE, (), ()), ready("e1")))
    assert tree.ready == ready("e1")
    tree.close()


def test_an_interrupt_while_it_starts_lets_go_of_everything(play: Play) -> None:
    played = play()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    with pytest.raises(KeyboardInterrupt):
        launched(played)
    signal.signal(signal.SIGALRM, before)
    assert isinstance(played.told()[-1], Shutdown)


def test_without_descriptors_no_pool_is_started_and_it_says_what_to_do() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    # Room for the four that are given back below, however many are free below the highest.
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, limits[1]))
    fillers = []
    with suppress(OSError):
        while True:
            fillers.append(os.dup(0))
    try:
        for _ in range(2):  # for a socket pair, then for the process
            with pytest.raises(PoolStartError, match=r"no process can be started: .*ulimit -n"):
                ProcessTree(["nodes.py"], workers=1, folder=FOLDER)
            for _ in range(2):
                os.close(fillers.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in fillers:
            os.close(descriptor)


# --- real trees --------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessTree]:
    tree = ProcessTree([client_nodes.FILE], workers=1, folder=tmp_path / "private" / "shop")
    yield tree
    tree.close()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a short path, for a socket's has 107 bytes at most."""
    return tmp_path_factory.mktemp("t", numbered=True)


@pytest.mark.slow
def test_a_tree_ends_when_it_is_closed(tree: ProcessTree) -> None:
    pids = Tree.below(tree.supervisor_pid).pids
    assert tree.exit_status is None
    with Ends(pids) as ends:
        tree.close()
        assert tree.exit_status == 0
        ends.wait()


def test_news_of_reloads_are_what_is_served_now(play: Play) -> None:
    played = play(ready("e1"))
    tree = launched(played)
    table = NodeTable((NodeInfo("shop.new", "inline"),), "other")
    good, bad = PoolReloaded(table), PoolReloaded(table, error="it can't be imported")
    played.channel.send(good)
    assert tree.read_news() == [good]
    assert tree.ready.table == table
    assert tree.ready.epoch == "e1"
    played.channel.send(bad)
    assert tree.read_news() == [bad]
    tree.reload()
    tree.begin_drain()
    played.channel.close()
    tree.drain()
    tree.close()
    tree.drain()  # it has ended


@pytest.mark.slow
def test_a_forked_child_only_lets_go_of_the_tree(tree: ProcessTree) -> None:
    child = os.fork()
    if child == 0:
        tree.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.kill(Tree.below(tree.supervisor_pid).broker, signal.SIGKILL)
    epoch = tree.ready.epoch
    (news,) = tree.read_news() or []  # so it lives
    assert isinstance(news, PoolReady)
    assert news.epoch != epoch


@pytest.mark.slow
def test_a_supervisor_that_does_not_end_is_killed(
    tree: ProcessTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_END_WAIT_S", 0.05)
    pids = Tree.below(tree.supervisor_pid).pids
    os.kill(tree.supervisor_pid, signal.SIGSTOP)
    begun = monotonic()
    with Ends(pids) as ends:
        tree.close()
        assert tree.exit_status == -signal.SIGKILL
        ends.wait()
    assert monotonic() - begun < 5.0


@pytest.mark.slow
def test_the_channel_can_be_polled(tree: ProcessTree) -> None:
    os.kill(tree.supervisor_pid, signal.SIGKILL)
    with socket.socket(fileno=os.dup(tree.fileno())) as copy:
        assert copy.recv(1, socket.MSG_PEEK) == b""
    assert tree.read_news() is None
