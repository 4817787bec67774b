"""Recorded maps in real trees whose client, broker, workers, or all of them are killed midway."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from trees import PATIENCE_S, Running, journal_of, kill

from pronghorn.broker.journal.checking import check_folder
from pronghorn.client import InterruptedRunError, WorkerLostError

pytestmark = pytest.mark.slow

Start = Callable[..., Running]

COUNT = 300
NODES = """
import os, time
from pronghorn.worker import node

def note(log: str, index: int) -> None:
    with open(log, "a") as file:  # one write: none is torn by another
        file.write(f"{index}\\n")

@node
def square(log: str, index: int) -> int:
    note(log, index)
    time.sleep(0.005)
    return index * index

@node(at_most_once=True)
def once(log: str, index: int) -> int:
    note(log, index)
    time.sleep(0.005)
    return index

@node
def fatal(log: str, index: int) -> int:
    note(log, index)
    if index == 7:
        os.kill(os.getpid(), 9)
    return index
"""

MAPS = """
import os, sys
from pronghorn.client import Client
with Client(sys.argv[1]) as client:
    items = [(sys.argv[2], index) for index in range(int(sys.argv[3]))]
    results = client.map("square", items, durability="sync", key="map-17")
    for _ in range(20):
        print(next(results), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    module = tmp_path / "shop.py"
    module.write_text(NODES)
    return str(module)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def items(log: Path, count: int = COUNT) -> list[tuple[str, int]]:
    return [(str(log), index) for index in range(count)]


def begun(log: Path) -> Counter[int]:
    """Tell how often each item was begun."""
    return Counter(map(int, log.read_text().split()))


def test_a_map_survives_its_broker_and_what_was_told_is_not_computed_again(
    start: Start, nodes: str, log: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    running = start(nodes, data=data, workers=2)
    run = running.client.start_map("square", items(log), durability="sync")
    results = run.items(ordered=False)
    told = list(islice(results, 40))
    kill([running.tree.broker])
    told += results
    assert sorted(told) == [index * index for index in range(COUNT)]
    counts = begun(log)
    assert all(counts[int(square**0.5)] == 1 for square in told[:40])
    assert set(counts) == set(range(COUNT))
    assert sum(counts.values()) < 2 * COUNT
    status = run.status()
    assert (status.attempt, status.items_done, status.status) == (2, COUNT, "done")
    running.pool.close()
    assert check_folder(data).problems == []


def test_a_map_survives_its_client_and_the_whole_tree(
    start: Start, nodes: str, log: Path, runtime: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    running = start(nodes, data=data)
    gone = subprocess.run(
        [sys.executable, "-c", MAPS, running.pool.endpoint, str(log), str(COUNT)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert gone.stdout.split() == [str(index * index) for index in range(20)]
    kill([*running.tree.pids, journal_of(running)])
    running.pool.close()
    for folder in runtime.iterdir():
        shutil.rmtree(folder)
    again = start(nodes, data=data)
    run = again.client.start_map("square", items(log), durability="sync", key="map-17")
    assert 20 <= run.status().items_done <= COUNT
    mapped = again.client.map("square", items(log), durability="sync", key="map-17")
    assert list(mapped) == [index * index for index in range(COUNT)]
    counts = begun(log)
    assert all(counts[index] == 1 for index in range(20))
    again.pool.close()
    assert check_folder(data).problems == []


def test_what_must_not_run_twice_ends_as_interrupted_and_keeps_what_it_has(
    start: Start, nodes: str, log: Path, tmp_path: Path
) -> None:
    running = start(nodes, data=tmp_path / "data")
    run = running.client.start_map("once", items(log))
    results = run.items(ordered=False)
    assert len(list(islice(results, 20))) == 20
    kill([running.tree.broker])
    with pytest.raises(InterruptedRunError):
        list(results)
    status = run.status()
    assert (status.status, status.attempt) == ("interrupted", 1)
    assert 20 <= status.items_done < COUNT
    assert set(begun(log).values()) == {1}


def test_an_item_that_kills_its_workers_is_the_only_one_that_fails(
    start: Start, nodes: str, log: Path, tmp_path: Path
) -> None:
    running = start(nodes, data=tmp_path / "data", workers=2)
    results = running.client.map(
        "fatal", items(log, 100), durability="batched", return_exceptions=True
    )
    found = list(results)
    assert isinstance(found[7], WorkerLostError)
    assert found[:7] + found[8:] == [index for index in range(100) if index != 7]
    counts = begun(log)
    assert counts.pop(7) == 3
    assert set(counts.values()) == {1}
