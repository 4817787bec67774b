"""The death of one process of the tree, its host being alive: the tree heals and serves on."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from trees import END_S, FAULTY, PATIENCE_S, Ends, Fifo, Running, is_alive, is_within, unreaped

from pronghorn.broker.wire.control import PoolReady, PoolReloaded
from pronghorn.client import BrokerLostError, Client, PronghornError

Start = Callable[..., Running]

BROKER_BACK_S = END_S  # typically 0.15


@contextmanager
def errors_to(fifo: Fifo) -> Iterator[None]:
    """Have the trees started in this block write their errors to a named pipe, for good."""
    stderr = os.dup(2)
    writer = os.open(fifo.path, os.O_WRONLY)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def until(fifo: Fifo, words: str) -> str:
    """Wait for a line with these words, and return it."""
    while words not in (line := fifo.line()):
        pass
    return line


def calls_until_served(client: Client) -> float:
    """Call until there is an answer; each try waits for a broker itself. Return the seconds."""
    begun = monotonic()
    assert _retried(client, "add", 1, 2) == 3
    return monotonic() - begun


@pytest.mark.slow
def test_a_new_broker_serves_soon_with_new_workers(start: Start, runtime: Path) -> None:
    running = start(workers=2)
    assert is_within(calls_until_served(running.client), END_S)
    before = running.tree
    with Ends([before.broker, *before.workers]) as ends:
        os.kill(before.broker, signal.SIGKILL)
        ends.wait(0.25)
    assert is_within(calls_until_served(running.client), BROKER_BACK_S)
    (news,) = running.pool._tree.read_news() or []
    assert isinstance(news, PoolReady)
    assert news.endpoints == running.pool.endpoints
    after = running.tree
    assert (after.supervisor, after.template) == (before.supervisor, before.template)
    assert after.broker != before.broker
    assert len(after.workers) == 2
    assert not {*after.workers} & {*before.workers}
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_calls_in_flight_end_with_their_broker(start: Start, fifo: Fifo) -> None:
    running = start(workers=2)
    begun = running.client.submit("spin_in_c", fifo.path)
    worker = int(fifo.line())
    with Ends([worker]) as ends:
        os.kill(running.tree.broker, signal.SIGKILL)
        ends.wait(0.25)
    error = begun.exception(PATIENCE_S)
    assert isinstance(error, BrokerLostError)
    assert error.outcome == "maybe_executed"
    assert is_within(calls_until_served(running.client), BROKER_BACK_S)


@pytest.mark.slow
def test_a_port_chosen_by_the_system_stays_the_same_for_the_next_broker(start: Start) -> None:
    running = start(bind=["tcp://127.0.0.1:0"])
    (address,) = [one for one in running.pool.endpoints if one.startswith("tcp")]
    with Client(address) as client, Ends([running.tree.broker]) as ends:
        assert client.call("add", 1, 2) == 3
        os.kill(running.tree.broker, signal.SIGKILL)
        ends.wait()
        assert is_within(calls_until_served(client), BROKER_BACK_S)


@pytest.mark.slow
def test_brokers_that_are_killed_again_and_again_are_started_on_after_a_while(
    start: Start,
) -> None:
    running = start()
    for _ in range(3):
        broker = running.tree.broker
        with Ends([broker]) as ends:
            os.kill(broker, signal.SIGKILL)
            ends.wait()
        assert is_within(calls_until_served(running.client), END_S)


@pytest.mark.slow
def test_running_calls_survive_the_template_and_workers_are_replaced(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    running = start(workers=2)
    opened = tmp_path / "opened"
    os.mkfifo(opened)
    future = running.client.submit("gate", fifo.path, str(opened))
    worker = int(fifo.line())
    before = running.tree
    with Ends([before.template]) as ends:
        os.kill(before.template, signal.SIGKILL)
        ends.wait()
    assert running.client.call("add", 1, 2) == 3
    opened.write_text("go on")
    assert future.result(PATIENCE_S) == worker
    with Ends(before.workers) as ends:
        ends.kill()
        ends.wait()
    assert running.client.call("add", 1, 2) == 3  # as soon as there is a template again
    after = running.tree
    assert after.template != before.template
    assert after.broker == before.broker
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_worker_and_template_killed_at_once_are_both_replaced(start: Start) -> None:
    running = start(workers=2)
    for _ in range(2):
        before = running.tree
        pids = [before.template, *before.workers]
        with Ends(pids) as ends:
            ends.kill()
            ends.wait()
        assert running.client.call("add", 1, 2) == 3
        assert is_alive(before.broker)
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_the_whole_tree_below_the_supervisor_comes_back(start: Start) -> None:
    running = start(workers=2)
    before = running.tree
    with Ends(before.pids[1:]) as ends:
        ends.kill()
        ends.wait()
    assert is_within(calls_until_served(running.client), END_S)
    assert {*before.pids} & {*running.tree.pids} == {before.supervisor}


@pytest.mark.slow
def test_nodes_that_changed_on_disk_are_served_once_the_template_is_started_again(
    start: Start, tmp_path: Path
) -> None:
    module = tmp_path / "shop.py"
    module.write_text("from pronghorn.worker import node\n@node\ndef old() -> int: return 1\n")
    running = start(str(module))
    assert running.client.call("old") == 1
    module.write_text("from pronghorn.worker import node\n@node\ndef new_one() -> int: return 2\n")
    before = running.tree
    with Ends([before.template, *before.workers]) as ends:
        os.kill(before.template, signal.SIGKILL)
        ends.wait(PATIENCE_S)
    assert running.client.call("new_one") == 2
    assert running.tree.broker == before.broker


@pytest.mark.slow
def test_a_module_that_can_not_be_imported_any_more_does_not_end_what_runs(
    start: Start, tmp_path: Path
) -> None:
    module = tmp_path / "shop.py"
    text = "from pronghorn.worker import node\n@node\ndef old() -> int: return 1\n"
    module.write_text(text)
    running = start(str(module))
    module.write_text("raise RuntimeError('half-written')\n")
    before = running.tree
    with Ends([before.template]) as ends:
        os.kill(before.template, signal.SIGKILL)
        ends.wait()
    assert running.client.call("old") == 1  # while templates come and go
    with Ends(before.workers) as ends:
        os.kill(before.workers[0], signal.SIGKILL)
        ends.wait()
    module.write_text(text)
    assert running.client.call("old") == 1


THREADED = (
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    "from pronghorn.worker import node\n"
)
OLD = THREADED + (
    "import os\n@node\ndef old() -> int: return 1\n@node\ndef pid() -> int: return os.getpid()\n"
)


@pytest.mark.slow
def test_spawned_workers_whose_module_changed_on_disk_are_not_taken_while_others_serve(
    start: Start, tmp_path: Path, fifo: Fifo
) -> None:
    module = tmp_path / "shop.py"
    module.write_text(OLD)
    with errors_to(fifo):
        running = start(str(module), workers=2)
    module.write_text(THREADED + "@node\ndef new_one() -> int: return 2\n")
    before = running.tree
    victim = running.client.call("pid")
    with Ends([victim]) as ends:
        os.kill(victim, signal.SIGKILL)
        ends.wait()
    line = until(fifo, "serve on")
    assert "its nodes differ from those of the template" in line
    assert f"if {module} changed on disk, reload to serve what is there now" in line
    assert "1 workers serve on" in line
    assert running.client.call("old") == 1
    after = running.tree
    assert (after.broker, after.template) == (before.broker, before.template)
    module.write_text(OLD)  # and all is as it was, after a back-off
    running.client.call("old")
    (other,) = {*before.workers} - {victim}
    with Ends([other]) as ends:
        os.kill(other, signal.SIGKILL)
        ends.wait()
    assert running.client.call("old") == 1
    assert running.tree.broker == before.broker


@pytest.mark.slow
def test_spawned_workers_serve_what_a_module_holds_now_when_none_with_the_old_is_left(
    start: Start, tmp_path: Path
) -> None:
    module = tmp_path / "shop.py"
    module.write_text(OLD)
    running = start(str(module), workers=2)
    assert running.client.call("old") == 1
    module.write_text(THREADED + "@node\ndef new_one() -> int: return 2\n")
    before = running.tree
    with Ends([*before.workers, before.template]) as ends:
        for pid in before.workers:
            os.kill(pid, signal.SIGKILL)
        ends.wait(PATIENCE_S)
    (news,) = running.pool._tree.read_news() or []  # as soon as all workers are ready
    assert isinstance(news, PoolReloaded)
    assert "shop.new_one" in news.table.names()
    assert _retried(running.client, "new_one") == 2
    running.wait_for_processes(2)  # one that was to have the old nodes may have started meanwhile


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["worker", "broker", "template", "all"])
def test_what_the_supervisor_can_not_start_for_want_of_descriptors_it_starts_when_it_can(
    start: Start, fifo: Fifo, victims: str
) -> None:
    with errors_to(fifo):
        running = start(workers=2)
    tree = running.tree
    pids = {
        "worker": tree.workers,
        "broker": (tree.broker,),
        "template": (tree.template,),
        "all": tree.pids[1:],
    }[victims]
    limits = resource.prlimit(tree.supervisor, resource.RLIMIT_NOFILE)
    # No number below is free: it can open nothing any more.
    resource.prlimit(tree.supervisor, resource.RLIMIT_NOFILE, (5, limits[1]))
    with Ends(pids) as ends:
        ends.kill()
        ends.wait()
    line = until(fifo, "can't be started" if victims != "worker" else "no worker can be started")
    assert "Too many open files: raise the limit of open files (ulimit -n)" in line
    resource.prlimit(tree.supervisor, resource.RLIMIT_NOFILE, limits)
    assert _retried(running.client, "add", 1, 2) == 3
    with Ends(running.tree.workers) as ends:
        ends.kill()
        ends.wait()
    assert _retried(running.client, "add", 1, 2) == 3
    assert unreaped(running.supervisor) == []


BARREN = """
import errno, os
real_fork = os.fork
def fork():
    if os.path.exists({barren!r}):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return real_fork()
os.fork = fork
"""


@pytest.mark.slow
def test_a_template_that_can_not_fork_ends_nothing_else(
    start: Start, tmp_path: Path, fifo: Fifo
) -> None:
    barren, module = tmp_path / "barren", tmp_path / "shop.py"
    module.write_text(BARREN.format(barren=str(barren)))
    with errors_to(fifo):
        running = start(FAULTY, str(module), workers=2)
    before = running.tree
    barren.touch()
    with Ends(before.workers) as ends:
        os.kill(before.workers[0], signal.SIGKILL)
        until(fifo, "the template ended with exit status 1")
        assert running.client.call("pid") == before.workers[1]
        barren.unlink()
        os.kill(before.workers[1], signal.SIGKILL)
        ends.wait()
    assert running.client.call("add", 1, 2) == 3
    assert running.tree.broker == before.broker


@pytest.mark.slow
def test_a_template_that_can_not_fork_is_started_on_in_growing_intervals(
    start: Start, tmp_path: Path, fifo: Fifo
) -> None:
    barren, module = tmp_path / "barren", tmp_path / "shop.py"
    module.write_text(BARREN.format(barren=str(barren)))
    with errors_to(fifo):
        running = start(FAULTY, str(module))
    barren.touch()
    os.kill(running.tree.workers[0], signal.SIGKILL)
    until(fifo, "the template ended with exit status 1")
    begun = monotonic()
    for _ in range(5):
        until(fifo, "the template ended with exit status 1")
    assert monotonic() - begun > sum(0.1 * 2**number for number in range(5))


@pytest.mark.slow
def test_a_host_that_never_reads_news_does_not_block_the_tree(start: Start, tmp_path: Path) -> None:
    """One epoch's news of many nodes nearly fills the channel to the host, two would block."""
    module = tmp_path / "many.py"
    nodes = "".join(f"@node\ndef n{i:0200}(a: int) -> int: return a\n" for i in range(400))
    module.write_text(f"from pronghorn.worker import node\n{nodes}")
    running = start(str(module))
    for _ in range(3):
        broker = running.tree.broker
        with Ends([broker]) as ends:
            os.kill(broker, signal.SIGKILL)
            ends.wait()
        assert _retried(running.client, f"n{7:0200}", 7) == 7


def _retried(client: Client, node: str, *args: Any) -> Any:
    begun = monotonic()
    while True:
        try:
            return client.call(node, *args)
        except PronghornError:
            if monotonic() - begun > PATIENCE_S:
                raise
