"""Nodes that call nodes: chains longer than there are workers, and the ends of callers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from trees import PATIENCE_S, Fifo, Running

from pronghorn.client import (
    CancelledError,
    DeadlineExceededError,
    NodeError,
    WorkerLostError,
)

Start = Callable[..., Running]

DEPTH = 100


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_calls_may_lie_deeper_than_there_are_workers(start: Start, workers: int) -> None:
    call = start(workers=workers).client.call
    for first in ("deep", "deep_async", "deep_thread"):
        for kinds in (["deep"], ["deep_async"], ["deep_thread"], ["deep_async", "deep"]):
            assert call(first, DEPTH, kinds, timeout_s=PATIENCE_S) == DEPTH, (first, kinds)
        kinds = ["deep_thread", "deep", "deep_async"]
        assert call(first, DEPTH, kinds, timeout_s=PATIENCE_S) == DEPTH, (first, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["deep", "deep_async", "deep_thread"])
def test_a_recursion_without_an_end_is_refused(start: Start, first: str) -> None:
    with pytest.raises(NodeError, match="calls within calls are 100 deep, the limit"):
        start(workers=2).client.call(first, DEPTH + 1, [first], timeout_s=PATIENCE_S)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nap", "nap_async", "nap_in_thread"])
def test_many_callers_at_once_do_not_wait_for_each_other(start: Start, name: str) -> None:
    """More callers than there is room for, each with calls of its own."""
    client = start(workers=2).client
    calls = [client.submit("fan_out", name, 5, 0.001, timeout_s=PATIENCE_S) for _ in range(200)]
    assert [call.result(PATIENCE_S) for call in calls] == [5] * 200


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_large_values_go_both_ways(start: Start, workers: int) -> None:
    data = os.urandom(3_000_000)
    assert start(workers=workers).client.call("reverse_by_another", data) == data[::-1]


@pytest.mark.slow
def test_what_a_dead_worker_s_nodes_called_is_cancelled(
    start: Start, fifo: Fifo, tmp_path: Path
) -> None:
    running = start(workers=2)
    child = Fifo(tmp_path / "child")
    arguments = [child.path, child.path]
    lost = running.client.submit("parent_of", fifo.path, "tidy", arguments)
    victim = int(fifo.line())
    where = int(child.line())
    assert where != victim
    os.kill(victim, signal.SIGKILL)
    assert int(child.line()) == where, "its finally block has run"
    assert isinstance(lost.exception(PATIENCE_S), WorkerLostError)
    child.close()
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
@pytest.mark.parametrize("parent", ["parent_of", "async_parent_of"])
@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_what_a_node_called_ends_with_it(
    start: Start, fifo: Fifo, tmp_path: Path, parent: str, way: str
) -> None:
    running = start(workers=2)
    running.wait_for_workers(2)  # else a parent that is a `def` has to run its child itself
    child = Fifo(tmp_path / "child")
    timeout_s = 1.0 if way == "deadline" else None
    given_up = running.client.submit(
        parent, fifo.path, "tidy", [child.path, child.path], timeout_s=timeout_s
    )
    fifo.line()
    where = int(child.line())
    if way == "cancel":
        given_up.cancel()
    assert int(child.line()) == where, "its finally block has run"
    if way == "deadline":
        assert isinstance(given_up.exception(PATIENCE_S), DeadlineExceededError)
    child.close()
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_call_that_kills_its_worker_is_an_error_to_its_caller(start: Start) -> None:
    running = start(workers=2)
    assert running.client.call("survive", "die", "SIGKILL") == "WorkerLostError"


@pytest.mark.slow
def test_a_stuck_call_of_a_node_ends_at_its_deadline(start: Start, fifo: Fifo) -> None:
    running = start(workers=2)
    begun = monotonic()
    with pytest.raises((DeadlineExceededError, CancelledError)):
        running.client.call("parent_of", fifo.path, "sleep_long", [fifo.path], timeout_s=0.3)
    assert monotonic() - begun < 1.0
    assert running.client.call("add", 1, 2, timeout_s=PATIENCE_S) == 3
