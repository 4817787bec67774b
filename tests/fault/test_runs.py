"""Runs that survive: their clients, their workers, the broker, the whole tree, in real trees."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from soak.durable import campaign
from trees import PATIENCE_S, Fifo, Running, journal_of, kill

from pronghorn.broker.journal.checking import check_folder
from pronghorn.client import (
    InterruptedRunError,
    NotFoundError,
    Pool,
    WorkerLostError,
)

pytestmark = pytest.mark.slow

Start = Callable[..., Running]

NODES = """
import os, time
from pathlib import Path
from pronghorn.worker import Context, node

@node
def wait_for(file: str, told: str = "") -> str:
    if told:
        Path(told).write_text("begun")
    while not Path(file).exists():
        time.sleep(0.01)
    return file

@node(at_most_once=True)
def once(told: str) -> None:
    with open(told, "w") as fifo:
        fifo.write("begun\\n")
    time.sleep(60)

@node
def told(ctx: Context, file: str, log: str) -> list:
    with open(log, "a") as noted:
        noted.write(f"{ctx.run_id} {ctx.attempt} {ctx.fence}\\n")
    while not Path(file).exists():
        time.sleep(0.01)
    return [ctx.run_id, ctx.attempt, ctx.fence]

@node
def die() -> None:
    os.kill(os.getpid(), 9)
"""

STARTS = """
import os, sys
from pronghorn.client import Client
with Client(sys.argv[1]) as client:
    print(client.start("wait_for", sys.argv[2], key="order-17").id, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    module = tmp_path / "shop.py"
    module.write_text(NODES)
    return str(module)


def end(running: Running, runtime: Path) -> None:
    """Kill a whole tree, and remove what nobody was left to remove."""
    kill([*running.tree.pids, journal_of(running)])
    running.pool.close()
    for folder in runtime.iterdir():
        shutil.rmtree(folder)


def test_a_run_survives_its_client_the_broker_and_the_tree(
    start: Start, nodes: str, runtime: Path, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", tmp_path / "file"
    running = start(nodes, data=data)
    started = subprocess.run(
        [sys.executable, "-c", STARTS, running.pool.endpoint, str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    run_id = started.stdout.strip()
    assert running.client.attach(run_id).status().status == "open"
    kill([running.tree.broker])
    run = running.client.attach(run_id)
    assert next(event for event in run.events() if event.event == "started").attempt == 2
    end(running, runtime)
    again = start(nodes, data=data)
    run = again.client.attach(run_id)
    assert again.client.start("wait_for", str(file), key="order-17").id == run_id
    file.touch()
    assert run.result(PATIENCE_S) == str(file)
    assert [event.event for event in run.events()] == ["accepted", "started", "started", "ended"]
    again.pool.close()
    assert check_folder(data).problems == []


def test_who_waits_for_a_result_gets_it_from_the_next_broker(
    start: Start, nodes: str, tmp_path: Path
) -> None:
    file, told = tmp_path / "file", tmp_path / "told"
    running = start(nodes, data=tmp_path / "data")
    durable = running.client.within(durability="sync", key="order-17")
    future = durable.submit("wait_for", str(file))
    assert running.client.start("wait_for", str(file), key="order-17")  # it is accepted
    kill([running.tree.broker])
    other = running.client.start("wait_for", str(file), str(told))  # of the new broker
    file.touch()
    assert future.result(PATIENCE_S) == str(file)
    assert other.result(PATIENCE_S) == str(file)


def test_what_must_not_run_twice_ends_as_interrupted(
    start: Start, nodes: str, fifo: Fifo, tmp_path: Path
) -> None:
    running = start(nodes, data=tmp_path / "data")
    run = running.client.start("once", fifo.path)
    assert fifo.line() == "begun"
    kill([running.tree.broker])
    with pytest.raises(InterruptedRunError):
        run.result(PATIENCE_S)
    assert run.status().attempt == 1


def test_a_node_is_told_its_run_and_which_attempt_it_is(
    start: Start, nodes: str, tmp_path: Path
) -> None:
    file, log = tmp_path / "file", tmp_path / "log"
    running = start(nodes, data=tmp_path / "data")
    run = running.client.start("told", str(file), str(log))
    follow = (event for event in run.events() if event.event == "started")
    while not log.exists():
        time.sleep(0.005)
    kill([running.tree.broker])
    assert next(follow).attempt == 2
    file.touch()
    run_id, attempt, fence = run.result(PATIENCE_S)
    assert (run_id, attempt) == (run.id, 2)
    first, *_ = log.read_text().splitlines()
    assert first.split()[:2] == [run.id, "1"]
    assert int(first.split()[2]) < fence


def test_a_run_that_kills_its_workers_is_parked(start: Start, nodes: str, tmp_path: Path) -> None:
    run = start(nodes, data=tmp_path / "data").client.start("die")
    with pytest.raises(WorkerLostError, match="3 workers died"):
        run.result(PATIENCE_S)
    assert (run.status().status, run.status().deaths) == ("poisoned", 3)


def test_a_run_whose_node_is_gone_ends_and_can_be_tried_again(
    start: Start, nodes: str, tmp_path: Path
) -> None:
    data, file = tmp_path / "data", tmp_path / "file"
    running = start(nodes, data=data)
    run_id = running.client.start("wait_for", str(file)).id
    running.pool.close()
    module = Path(nodes)
    module.write_text(NODES.replace("wait_for", "wait"))
    running = start(nodes, data=data)
    run = running.client.attach(run_id)
    with pytest.raises(NotFoundError, match=r"no node named 'shop\.wait_for'"):
        run.result(PATIENCE_S)
    module.write_text(NODES)
    running.client.admin.reload()
    file.touch()
    run.retry()
    assert run.result(PATIENCE_S) == str(file)


def test_promises_are_kept_while_everything_is_killed(tmp_path: Path) -> None:
    """Shortened; ``scripts/soak durable`` is the whole of it."""
    found = campaign(Path(tmp_path), 6, 17)
    assert found.violations == []
    assert found.kills.total() == 6


def test_without_a_journal_runs_are_refused(start: Start, nodes: str) -> None:
    pool: Pool = start(nodes).pool
    with pytest.raises(Exception, match=r"this pool has no journal"):
        pool.client().start("die")
