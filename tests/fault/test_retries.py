"""Nodes that may run twice: tried again after their worker's death, as often as they say."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import Running

from pronghorn.client import DeadlineExceededError, NodeError, WorkerLostError

Start = Callable[..., Running]


def runs(counter: Path) -> int:
    return len(counter.read_text().splitlines()) if counter.exists() else 0


@pytest.mark.slow
def test_a_node_whose_worker_died_runs_again(start: Start, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    assert start().client.call("die_first", 2, str(counter)) == 3
    assert runs(counter) == 3


@pytest.mark.slow
def test_after_its_attempts_the_last_death_is_told(start: Start, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    with pytest.raises(WorkerLostError, match="exit status 3") as caught:
        start().client.call("die_first", 10, str(counter))
    assert caught.value.outcome == "maybe_executed"
    assert runs(counter) == 3


@pytest.mark.slow
def test_all_that_dies_with_a_worker_is_tried_within_the_budget(
    start: Start, tmp_path: Path
) -> None:
    """The budget of a node is ten retries to begin with: twelve lost calls are too many for it."""
    client = start().client
    lost = 0
    for number in range(6):
        counter = tmp_path / f"counter {number}"
        try:
            client.call("die_first", 2, str(counter))
        except WorkerLostError:
            lost += 1
    assert lost == 1, "five calls took the ten retries; what they gave back was one more"


@pytest.mark.slow
def test_named_exceptions_are_tried_again(start: Start, tmp_path: Path) -> None:
    client = start().client
    assert client.call("fail_first", 3, str(tmp_path / "three")) == 4
    with pytest.raises(NodeError, match="ConnectionError: run 4") as caught:
        client.call("fail_first", 9, str(tmp_path / "nine"))
    assert caught.value.retryable
    assert runs(tmp_path / "nine") == 4


@pytest.mark.slow
def test_a_map_and_a_call_of_another_node_are_tried_again_too(start: Start, tmp_path: Path) -> None:
    running = start(workers=2)
    client = running.client
    items = [(1, str(tmp_path / "mapped")), (1, str(tmp_path / "too"))]
    assert list(client.map("die_first", items, chunk_size=2)) == [3, 2], "the first ran thrice"
    arguments = [1, str(tmp_path / "nested")]
    running.wait_for_workers(2)  # with one, the child runs in its parent's and takes that along
    assert client.call("parent_of", os.devnull, "die_first", arguments) == "child: 2"


@pytest.mark.slow
def test_a_deadline_ends_attempts(start: Start, tmp_path: Path) -> None:
    with pytest.raises((WorkerLostError, DeadlineExceededError)):
        start().client.call("die_first", 2, str(tmp_path / "counter"), timeout_s=0.005)
    assert runs(tmp_path / "counter") <= 1
