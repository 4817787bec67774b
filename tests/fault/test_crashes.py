"""What is told of a crash or a hang: the stack, and what else ran."""

import os
import signal
from collections.abc import Callable
from time import monotonic

import pytest
from trees import PATIENCE_S, Ends, Fifo, Running

from pronghorn.client import DeadlineExceededError, WorkerLostError

Start = Callable[..., Running]


@pytest.mark.slow
@pytest.mark.parametrize("node", ["die", "die_in_thread", "die_in_coroutine"])
def test_a_segfault_tells_its_stack(start: Start, node: str) -> None:
    with pytest.raises(WorkerLostError, match="SIGSEGV") as caught:
        start().client.call(node, "segfault")
    stack = caught.value.details.traceback
    assert stack is not None
    assert stack.startswith("Fatal Python error: Segmentation fault")
    assert 'faulty.py", line' in stack
    assert f"in {node}\n" in f"{stack}\n"
    assert "runtime.py" not in stack.partition(f"in {node}")[2].partition("\n\n")[0]


@pytest.mark.slow
def test_what_ends_without_a_crash_has_no_stack(start: Start) -> None:
    for how in ("SIGKILL", "exit"):
        with pytest.raises(WorkerLostError) as caught:
            start().client.call("die", how)
        assert caught.value.details.traceback is None


@pytest.mark.slow
def test_a_crashing_child_of_a_node_is_not_its_worker(start: Start) -> None:
    client = start().client
    assert client.call("crash_in_child") == signal.SIGSEGV
    with pytest.raises(WorkerLostError, match="SIGKILL") as caught:
        client.call("die", "SIGKILL")
    assert caught.value.details.traceback is None


@pytest.mark.slow
def test_a_death_tells_what_else_ran_the_longest_first(start: Start, fifo: Fifo) -> None:
    running = start()
    waiting = [running.client.submit("wait_forever", fifo.path) for _ in range(2)]
    for _ in waiting:
        fifo.line()
    with pytest.raises(WorkerLostError) as caught:
        running.client.call("die", "SIGKILL")
    told = caught.value.details.running
    assert told is not None
    assert [line.partition(" ")[0] for line in told] == [
        "faulty.wait_forever",
        "faulty.wait_forever",
        "faulty.die",
    ]
    for future in waiting:
        assert isinstance(future.exception(PATIENCE_S), WorkerLostError)


@pytest.mark.slow
def test_a_hang_is_ended_after_its_deadline_and_its_stack_logged(
    start: Start, fifo: Fifo, capfd: pytest.CaptureFixture[str]
) -> None:
    running = start()
    hung = running.client.submit("sleep_long", fifo.path, timeout_s=0.1)
    victim = int(fifo.line())
    with Ends([victim]) as ends:
        assert isinstance(hung.exception(PATIENCE_S), DeadlineExceededError)
        ends.wait()
    assert running.client.call("add", 1, 2, timeout_s=PATIENCE_S) == 3
    log = capfd.readouterr().err
    assert "faulty.sleep_long went on after it was given up\n  Fatal Python error: Aborted" in log
    assert "in sleep_long\n" in log


@pytest.mark.slow
def test_a_stopped_worker_is_killed_after_the_deadline(start: Start, fifo: Fifo) -> None:
    """It can't write its stack, so it is killed a second later."""
    running = start()
    late = running.client.submit("sleep_long", fifo.path, timeout_s=0.2)
    victim = int(fifo.line())
    with Ends([victim]) as ends:
        begun = monotonic()
        os.kill(victim, signal.SIGSTOP)
        assert isinstance(late.exception(PATIENCE_S), DeadlineExceededError)
        ends.wait(within_s=PATIENCE_S)
        assert monotonic() - begun < 4.0
    assert running.client.call("add", 1, 2, timeout_s=PATIENCE_S) == 3


@pytest.mark.slow
def test_a_worker_that_was_held_up_and_has_nothing_to_say_gets_calls_again(
    start: Start, fifo: Fifo
) -> None:
    """It has begun what it holds, late, and that waits for ever: its other calls waited with it."""
    running = start()
    (worker,) = running.tree.workers
    os.kill(worker, signal.SIGSTOP)
    waiting = running.client.submit("wait_forever", fifo.path)
    end = monotonic() + PATIENCE_S
    while not running.client.stats().workers[0].stalled:
        assert monotonic() < end
    os.kill(worker, signal.SIGCONT)
    fifo.line()
    assert running.client.call("add", 1, 2, timeout_s=PATIENCE_S) == 3
    assert not waiting.done()
