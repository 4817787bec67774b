"""A worker that dies: what its callers are told, and who takes its place."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from trees import FAULTY, PATIENCE_S, Ends, Fifo, Running, is_alive, unreaped

from pronghorn.client import WorkerLostError

Start = Callable[..., Running]

REPLACED_S = 1.0  # typically 0.02; a back-off after some deaths would show

CAUSES = {
    "SIGKILL": "signal 9 (SIGKILL)",
    "SIGABRT": "signal 6 (SIGABRT)",
    "SIGTERM": "signal 15 (SIGTERM)",
    "segfault": "signal 11 (SIGSEGV)",
    "exit": "exit status 3",
}


@pytest.mark.slow
def test_caller_is_told_how_its_worker_ended_and_another_serves(start: Start) -> None:
    running = start()
    for how, cause in CAUSES.items():
        before = running.client.call("pid")
        with pytest.raises(WorkerLostError) as caught:
            running.client.call("die", how)
        assert caught.value.details.cause == cause
        assert caught.value.outcome == "maybe_executed"
        assert caught.value.message == f"faulty.die: its worker ended with {cause}"
        assert running.client.call("pid") != before
        assert unreaped(running.supervisor) == []


@pytest.mark.slow
@pytest.mark.parametrize("node", ["die_in_thread", "die_in_coroutine"])
def test_all_that_a_worker_runs_at_once_is_lost_with_it(
    start: Start, fifo: Fifo, node: str
) -> None:
    running = start()
    waiting = [running.client.submit("wait_forever", fifo.path) for _ in range(3)]
    for _ in waiting:
        fifo.line()
    with pytest.raises(WorkerLostError):
        running.client.call(node, "SIGKILL")
    for future in waiting:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, WorkerLostError)
        assert error.outcome == "maybe_executed"
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_an_idle_worker_that_is_killed_is_replaced_at_once(start: Start) -> None:
    running = start(workers=2)
    running.client.call("add", 1, 2)
    for _ in range(10):
        workers = running.tree.workers
        with Ends(workers) as ends:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            ends.wait()
        begun = monotonic()
        assert not {running.client.call("pid"), running.client.call("pid")} & {*workers}
        assert monotonic() - begun < REPLACED_S
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_what_a_dead_worker_held_but_had_not_begun_runs_elsewhere(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    running = start()
    running.client.call("gate", fifo.path, os.devnull)  # it is known as quick from now on
    running.client.call("add", 1, 1)
    fifo.line()
    never = tmp_path / "never"
    os.mkfifo(never)
    begun = running.client.submit("gate", fifo.path, str(never))
    behind = [running.client.submit("add", i, 1) for i in range(30)]
    victim = int(fifo.line())
    os.kill(victim, signal.SIGKILL)
    assert [future.result(PATIENCE_S) for future in behind] == [i + 1 for i in range(30)]
    error = begun.exception(PATIENCE_S)
    assert isinstance(error, WorkerLostError)
    assert error.outcome == "maybe_executed"


@pytest.mark.slow
@pytest.mark.parametrize("node", ["die_at", "die_at_in_thread"])
def test_of_a_chunk_only_the_item_that_killed_its_worker_is_in_doubt(
    start: Start, node: str
) -> None:
    running = start(workers=2)
    items = [{"index": index, "at": 70} for index in range(100)]
    results = list(running.client.map(node, items, chunk_size=20, return_exceptions=True))
    error = results.pop(70)
    assert results == [*range(70), *range(71, 100)]
    assert isinstance(error, WorkerLostError)
    assert error.outcome == "maybe_executed"


@pytest.mark.slow
def test_a_chunk_in_which_the_results_grow_beyond_the_limit_is_sent_in_parts(start: Start) -> None:
    running = start(workers=2)
    sizes = [300_000] * 120  # 36 MB in one chunk, of which a result has 16 MiB at most
    results = running.client.map("text", [{"size": size} for size in sizes], chunk_size=120)
    assert [len(result) for result in results] == sizes


@pytest.mark.slow
@pytest.mark.parametrize("_", range(2))
def test_a_result_that_was_written_is_delivered_whatever_comes_next(start: Start, _: int) -> None:
    running = start(workers=4)
    for turn in range(25):
        futures = [running.client.submit("value_and_die", 4 * turn + i, "after") for i in range(4)]
        assert _results(futures) == [4 * turn + i for i in range(4)]


@pytest.mark.slow
def test_a_result_that_was_not_written_is_lost_but_known_to_exist(start: Start) -> None:
    running = start(workers=4)
    futures = [running.client.submit("value_and_die", i, "before") for i in range(20)]
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, WorkerLostError)
        assert error.outcome == "executed"


@pytest.mark.slow
def test_whenever_a_worker_dies_its_outcome_is_true(start: Start, tmp_path: Path) -> None:
    running = start(workers=4)
    delays = range(10, 500, 10)  # microseconds: before, in and after the node
    futures = {
        delay: running.client.submit("die_within", delay, str(tmp_path / str(delay)))
        for delay in delays
    }
    wait(futures.values(), PATIENCE_S)
    for delay, future in futures.items():
        error = future.exception(0)
        if error is None:
            assert future.result() == delay
            continue
        assert isinstance(error, WorkerLostError)
        assert error.details.cause == "signal 14 (SIGALRM)"
        if error.outcome == "executed":
            assert (tmp_path / str(delay)).exists()
        else:
            assert error.outcome == "maybe_executed"


@pytest.mark.slow
def test_a_crash_on_every_call_does_not_slow_down_the_others(start: Start) -> None:
    running = start(workers=2)
    for turn in range(20):
        with pytest.raises(WorkerLostError):
            running.client.call("die", "SIGKILL")
        begun = monotonic()
        assert running.client.call("add", turn, 1) == turn + 1
        assert monotonic() - begun < REPLACED_S


@pytest.mark.slow
def test_a_child_that_a_node_forked_outlives_its_worker_but_holds_nothing_up(start: Start) -> None:
    running = start()
    child = running.client.call("fork_child")
    with pytest.raises(WorkerLostError), Ends([running.client.call("pid")]) as ends:
        running.client.call("die", "SIGKILL")
    ends.close()
    assert running.client.call("add", 1, 2) == 3
    assert is_alive(child)
    with Ends([child]) as ends:
        running.pool.close()
        ends.wait()


@pytest.mark.slow
@pytest.mark.parametrize("node", ["fork_and_return", "fork_and_raise", "fork_in_coroutine"])
def test_a_node_that_returns_twice_is_answered_once(
    start: Start, node: str, capfd: pytest.CaptureFixture[str]
) -> None:
    running = start()
    worker = running.client.call("pid")
    child = running.client.call(node)
    assert child > 0
    if is_alive(child):
        with Ends([child]) as ends:
            ends.wait()
    assert running.client.call("pid") == worker
    assert running.client.call("run_command", "word") == "word"
    assert running.client.call("nap_in_thread", 0.001) == worker
    running.pool.close()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_children_that_nodes_leave_behind_are_reaped(start: Start) -> None:
    running = start()
    child = running.client.call("brief_child")
    with pytest.raises(WorkerLostError):
        running.client.call("die", "SIGKILL")  # its child becomes the supervisor's
    running.client.call("pid")
    assert unreaped(running.supervisor) == []
    assert not is_alive(child)


@pytest.mark.slow
def test_workers_that_die_at_their_start_are_started_on_in_growing_intervals(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    doomed = tmp_path / "doomed"
    module = tmp_path / "stillborn.py"
    module.write_text(
        "import os\n"
        "template = os.getpid()\n"
        "def die_young():\n"
        f"    if os.getppid() != template and os.path.exists({str(doomed)!r}):\n"
        f"        with open({fifo.path!r}, 'a') as out: print('born', file=out)\n"
        "        os._exit(9)\n"
        "os.register_at_fork(after_in_child=die_young)\n"
    )
    running = start(FAULTY, str(module))
    running.client.call("add", 1, 2)
    doomed.touch()
    begun = monotonic()
    os.kill(running.client.call("pid"), signal.SIGKILL)
    for _ in range(3):
        assert fifo.line() == "born"
    assert monotonic() - begun > 0.1 + 0.2
    doomed.unlink()
    assert running.client.call("add", 1, 2) == 3


def _results(futures: list["Future[Any]"]) -> list[Any]:
    return [future.result(PATIENCE_S) for future in futures]
