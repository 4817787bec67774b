"""Whatever ends a pool's host or its processes: soon nothing is left of the tree."""

import json
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from trees import END_S, FAULTY, PATIENCE_S, Ends, Fifo, Host, Running, Tree, hosting, is_alive

from pronghorn.client import BrokerLostError, Client

Start = Callable[..., Running]

PREAMBLE = f"""
import os, signal, sys, threading, time
from pronghorn.client import Pool
pool = Pool({FAULTY!r}, workers=WORKERS)
client = pool.client()
client.call("add", 1, 2)
"""


def script(*lines: str, workers: int = 2) -> str:
    """Write a host program with a pool that is warm."""
    preamble = PREAMBLE.replace("WORKERS", str(workers))
    return preamble + "\n".join(textwrap.dedent(line) for line in lines) + "\n"


def end_of(host: Host, action: Callable[[], object]) -> float:
    """Do what ends a host's tree; return how many seconds passed until nothing was left."""
    tree = Tree.of_host(host.pid)
    assert len(tree.memory) == 1
    with Ends([*tree.pids, host.pid]) as ends:
        action()
        took_s = ends.wait()
    assert tree.memory == []
    return took_s


WAYS: dict[str, Callable[[Host], object]] = {
    "ctrl-c": Host.interrupt,
    "SIGTERM": lambda host: os.kill(host.pid, signal.SIGTERM),
    "SIGKILL": lambda host: os.kill(host.pid, signal.SIGKILL),
    "return": lambda host: host.told(""),
    "SIGTERM to the supervisor": lambda host: os.kill(_supervisor(host), signal.SIGTERM),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_an_idle_tree(way: str) -> None:
    body = "print('ready', flush=True)", "sys.stdin.readline()"
    with hosting(script(*body)) as host:
        assert host.says() == "ready"
        if "supervisor" in way:
            tree = Tree.of_host(host.pid)
            with Ends(tree.pids) as ends:
                WAYS[way](host)
                ends.wait()
            assert tree.memory == []
        else:
            end_of(host, lambda: WAYS[way](host))


# The one that never lets Python's other threads run is last: those of its worker could not begin.
ENDLESS = ["sleep_long", "deaf", "sleep_in_thread", "stubborn", "spin_in_c"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ctrl-c", "SIGKILL"])
def test_nothing_is_left_of_a_tree_whose_nodes_do_not_end(way: str, fifo: Fifo) -> None:
    begin = f"client.submit(node, {fifo.path!r}); sys.stdin.readline()"
    body = f"for node in {ENDLESS!r}: {begin}", "sys.stdin.readline()"
    with hosting(script(*body, workers=len(ENDLESS))) as host:
        for _ in ENDLESS:
            fifo.line()  # it has begun, so the next one may come
            host.told("")
        end_of(host, lambda: WAYS[way](host))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ctrl-c", "SIGKILL"])
def test_nothing_is_left_of_what_nodes_have_started(way: str) -> None:
    body = "print(client.call('daemons'), flush=True)", "sys.stdin.readline()"
    with hosting(script(*body)) as host:
        daemons = json.loads(host.says())
        assert all(is_alive(pid) for pid in daemons)
        with Ends(daemons) as ends:
            end_of(host, lambda: WAYS[way](host))
            ends.wait()


@pytest.mark.slow
def test_orphans_of_dead_workers_go_with_the_tree(start: Start) -> None:
    running = start()
    daemons = running.client.call("daemons")
    os.kill(running.client.call("pid"), signal.SIGKILL)
    running.client.call("pid")
    assert all(is_alive(pid) for pid in daemons)
    with Ends([*daemons, *running.tree.pids]) as ends:
        running.pool.close()
        ends.wait()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["raise KeyError(1)", "os._exit(4)"])
def test_a_host_that_does_not_close_its_pool_leaves_nothing(ending: str) -> None:
    body = "print('ready', flush=True)", "sys.stdin.readline()", ending
    with hosting(script(*body)) as host:
        host.says()
        end_of(host, lambda: host.told(""))


@pytest.mark.slow
def test_a_pool_made_in_a_thread_outlives_the_thread_and_ends_with_the_host() -> None:
    text = f"""
    import sys, threading
    from pronghorn.client import Pool
    def make():
        global pool
        pool = Pool({FAULTY!r}, workers=2)
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    for line in sys.stdin:
        print(pool.client().call("add", 1, 2), flush=True)
    """
    with hosting(textwrap.dedent(text)) as host:
        for _ in range(3):
            host.told("go on")
            assert host.says() == "3"
        end_of(host, host.interrupt)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["return", "SIGKILL"])
def test_a_child_of_the_host_does_not_keep_the_tree(way: str, fifo: Fifo) -> None:
    body = """
        if (child := os.fork()) == 0:
            time.sleep(1000)
        print(child, flush=True)
        sys.stdin.readline()
        pool.close()
        print("closed", flush=True)
        sys.stdin.readline()
        """
    with hosting(script(body)) as host:
        child = int(host.says())
        tree = Tree.of_host(host.pid)
        with Ends(tree.pids) as ends:
            WAYS[way](host)
            ends.wait()
        assert is_alive(child)
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_pool_in_a_forked_child_is_the_child_s_own() -> None:
    body = f"""
        import multiprocessing
        def serve():
            inner = Pool({FAULTY!r}, workers=1)
            print(inner.client().call("add", 2, 3), os.getpid(), flush=True)
            time.sleep(1000)
        child = multiprocessing.get_context("fork").Process(target=serve, daemon=True)
        child.start()
        sys.stdin.readline()
        print(client.call("add", 1, 2), flush=True)
        sys.stdin.readline()
        """
    with hosting(script(body)) as host:
        result, child = map(int, host.says().split())
        assert result == 5
        inner = Tree.of_host(child)
        assert len(inner.workers) == 1
        with Ends([*inner.pids, child]) as ends:
            os.kill(child, signal.SIGKILL)
            ends.wait()
        host.told("")
        assert host.says() == "3"
        end_of(host, lambda: host.told(""))


@pytest.mark.slow
def test_closing_ends_calls_that_run(start: Start, fifo: Fifo) -> None:
    running = start(workers=2)
    with Client(running.pool.endpoint) as stranger:
        mine = running.client.submit("sleep_long", fifo.path)
        theirs = stranger.submit("sleep_long", fifo.path)
        fifo.line(), fifo.line()
        with Ends(running.tree.pids) as ends:
            begun = monotonic()
            running.pool.close()
            assert monotonic() - begun < END_S
            ends.wait(0.0)
        assert isinstance(mine.exception(PATIENCE_S), BrokerLostError)
        error = theirs.exception(PATIENCE_S)
        assert isinstance(error, BrokerLostError)
        assert error.outcome == "maybe_executed"


@pytest.mark.slow
def test_coroutines_get_to_clean_up(start: Start, fifo: Fifo, tmp_path: Path) -> None:
    running = start()
    running.client.submit("tidy", fifo.path, str(tmp_path / "cleaned"))
    worker = fifo.line()
    running.pool.close()
    assert (tmp_path / "cleaned").read_text() == f"{worker}\n"


@pytest.mark.slow
def test_closing_twice_and_calling_afterwards(start: Start) -> None:
    running = start()
    running.pool.close()
    running.pool.close()
    with pytest.raises(BrokerLostError):
        running.client.call("add", 1, 2)


@pytest.mark.slow
def test_a_killed_supervisor_takes_the_tree_with_it(start: Start, fifo: Fifo) -> None:
    running = start(workers=3)
    future = running.client.submit("sleep_long", fifo.path)
    running.client.submit("spin_in_c", fifo.path)
    fifo.line(), fifo.line()
    tree = running.tree
    with Ends(tree.pids) as ends:
        os.kill(tree.supervisor, signal.SIGKILL)
        ends.wait()
    assert tree.memory == []
    assert isinstance(future.exception(PATIENCE_S), BrokerLostError)


@pytest.mark.slow
def test_supervisor_and_broker_killed_at_once_leave_files_that_the_next_pool_removes(
    start: Start, runtime: Path
) -> None:
    script_ends = script("print('ready', flush=True)", "sys.stdin.readline()")
    with hosting(script_ends) as host:
        host.says()
        tree = Tree.of_host(host.pid)
        with Ends([*tree.pids, host.pid]) as ends:
            for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none sees another's end
                for pid in (tree.supervisor, tree.broker, host.pid):
                    os.kill(pid, number)
            ends.wait()
        host.rest()
    (stale,), memory = runtime.iterdir(), tree.memory
    assert len(memory) == 1
    assert (stale / "broker.sock").is_socket()
    running = start()
    assert running.client.call("add", 1, 2) == 3
    assert not stale.exists()
    assert tree.memory == []


def _supervisor(host: Host) -> int:
    return Tree.of_host(host.pid).supervisor
