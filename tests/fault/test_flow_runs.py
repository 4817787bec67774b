"""Recorded workflows that survive their host, the broker and the tree, in real trees."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from soak.flows import campaign
from trees import PATIENCE_S, Running, journal_of, kill

from pronghorn.broker.journal.checking import check_folder
from pronghorn.client import RunFailedError, RunHandle

pytestmark = pytest.mark.slow

Start = Callable[..., Running]

NODES = """
import time
from pathlib import Path
from pronghorn.worker import node

def _begin(log: str, name: str) -> None:
    with open(log, "a") as file:
        file.write(name + "\\n")

@node
def step(log: str, name: str) -> str:
    _begin(log, name)
    return name * 600

@node
def held(log: str, name: str) -> str:
    \"\"\"Wait until it may go on.\"\"\"
    _begin(log, name)
    while not Path(f"{log}.{name}").exists():
        time.sleep(0.01)
    return name

@node(at_most_once=True)
def once(log: str, name: str) -> str:
    return held(log, name)

@node
def checked(log: str, name: str) -> None:
    _begin(log, name)
    if not Path(f"{log}.{name}").exists():
        raise ValueError("not yet")
"""


def chain(*steps: tuple[str, str]) -> dict[str, Any]:
    """Define tasks that follow each other, each by its name and its node."""
    names = [name for name, _ in steps]
    tasks = {
        name: {
            "action": action,
            "input": {"log": "{{ log }}", "name": name},
            "next": [{"when": "{{ succeeded() }}", "do": then}],
        }
        for (name, action), then in zip(steps, [*names[1:], "noop"], strict=True)
    }
    last = {"action": "core.echo", "input": {"message": "{{ log }}"}}
    return {"input": ["log"], "tasks": {**tasks, "last": last}, "output": [{"log": "{{ log }}"}]}


class Shop:
    """What a run of a chain leaves."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.log.touch()

    def begun(self) -> list[str]:
        return self.log.read_text().split()

    def let_go(self, name: str) -> None:
        Path(f"{self.log}.{name}").touch()

    def wait_for(self, run: RunHandle[Any], task: str) -> None:
        """Wait until a task is recorded."""
        for event in run.events():
            if task in dict(event.tasks):
                return
        raise AssertionError(f"{task} was not recorded")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    module = tmp_path / "shop.py"
    module.write_text(NODES)
    return str(module)


def host_of(running: Running) -> int:
    (pid,) = [each.pid for each in running.client.admin.workers() if each.host]
    return pid


HELD = chain(("a", "step"), ("b", "held"), ("c", "step"))


@pytest.mark.parametrize("durability", ["batched", "sync"])
def test_a_run_survives_its_host_and_the_broker(
    start: Start, nodes: str, shop: Shop, tmp_path: Path, durability: str
) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    run = running.client.start(HELD, log=str(shop.log), durability=durability)
    shop.wait_for(run, "a")
    os.kill(host_of(running), signal.SIGKILL)
    assert any(event.event == "lost" for event in run.events())
    kill([running.tree.broker])
    assert running.client.attach(run.id).status().status == "open"
    shop.let_go("b")
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    assert shop.begun().count("a") == shop.begun().count("c") == 1
    running.pool.close()
    assert check_folder(tmp_path / "data").problems == []


def test_a_served_workflow_goes_on_as_it_was_when_the_tree_is_killed(
    start: Start, nodes: str, shop: Shop, tmp_path: Path, runtime: Path
) -> None:
    flow, data = tmp_path / "sale.json", tmp_path / "data"
    flow.write_text(json.dumps(HELD))
    running = start(nodes, str(flow), data=data)
    run_id = running.client.start("sale", str(shop.log), key="order-17").id
    shop.wait_for(running.client.attach(run_id), "a")
    kill([*running.tree.pids, journal_of(running)])
    running.pool.close()
    for folder in runtime.iterdir():
        shutil.rmtree(folder)
    flow.write_text(json.dumps(chain(("other", "step"))))
    running = start(nodes, str(flow), data=data)
    run = running.client.attach(run_id)
    shop.let_go("b")
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    assert shop.begun().count("a") == 1
    assert "other" not in shop.begun()
    assert running.client.start("sale", str(shop.log), key="order-17").id == run_id


def calling(name: str) -> dict[str, Any]:
    """Define a task, and two items, that call a workflow."""
    given = {"action": name, "input": {"log": "{{ log }}"}}
    tasks = {
        "one": {**given, "next": [{"when": "{{ succeeded() }}", "do": "both"}]},
        "both": {**given, "with": "{{ [1, 2] }}"},
    }
    return {"input": ["log"], "tasks": tasks, "output": [{"log": "{{ log }}"}]}


@pytest.mark.parametrize("durability", ["batched", "sync"])
def test_workflows_within_go_on_when_worker_host_broker_and_tree_are_killed(
    start: Start, nodes: str, shop: Shop, tmp_path: Path, runtime: Path, durability: str
) -> None:
    inner, outer, data = tmp_path / "inner.json", tmp_path / "outer.json", tmp_path / "data"
    inner.write_text(json.dumps(HELD))
    outer.write_text(json.dumps(calling("inner")))
    running = start(nodes, str(inner), str(outer), data=data)
    run = running.client.start(calling("outer"), log=str(shop.log), durability=durability)
    shop.wait_for(run, "one/one/a")
    (worker, *_) = [each.pid for each in running.client.admin.workers() if not each.host]
    kill([host_of(running), worker])
    assert any(event.event == "lost" for event in run.events())
    kill([running.tree.broker])
    assert running.client.attach(run.id).status().status == "open"
    kill([*running.tree.pids, journal_of(running)])
    running.pool.close()
    for folder in runtime.iterdir():
        shutil.rmtree(folder)
    inner.write_text(json.dumps(chain(("other", "step"))))
    outer.write_text(json.dumps(chain(("other", "step"))))
    running = start(nodes, str(inner), str(outer), data=data)
    again = running.client.attach(run.id)
    shop.let_go("b")
    assert again.result(PATIENCE_S) == {"log": str(shop.log)}
    begun = shop.begun()
    # What had begun goes on as it was; the workflows that begin later are those of now.
    assert (begun.count("a"), begun.count("c"), begun.count("other")) == (1, 1, 4)
    told = [task for event in again.events() for task, _ in event.tasks]
    assert len(told) == len(set(told))
    assert {"one/one/b", "one/one", "one/both[1]/other", "both[0]/other", "both"} <= set(told)
    running.pool.close()
    assert check_folder(data).problems == []


def test_a_failed_run_is_tried_again_from_where_it_failed_within(
    start: Start, nodes: str, shop: Shop, tmp_path: Path
) -> None:
    inner = tmp_path / "inner.json"
    inner.write_text(json.dumps(chain(("a", "step"), ("b", "checked"), ("c", "step"))))
    running = start(nodes, str(inner), hosts=1, data=tmp_path / "data")
    run = running.client.start(calling("inner"), log=str(shop.log))
    with pytest.raises(RunFailedError, match="b: not yet"):
        run.result(PATIENCE_S)
    shop.let_go("b")
    run.retry()
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    begun = shop.begun()
    assert (begun[:4], sorted(begun[4:])) == (["a", "b", "b", "c"], [*"aabbcc"])


def test_a_pause_survives_the_broker(start: Start, nodes: str, shop: Shop, tmp_path: Path) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    run = running.client.start(HELD, log=str(shop.log))
    shop.wait_for(run, "a")
    run.pause()
    shop.let_go("b")
    shop.wait_for(run, "b")
    kill([running.tree.broker])
    run.pause()  # it is taken up, and paused as it was
    assert shop.begun() == ["a", "b"]
    run.resume()
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    assert shop.begun() == ["a", "b", "c"]


WAITS = {
    "input": ["log", "n"],
    "tasks": {
        "a": {
            "action": "step",
            "input": {"log": "{{ log }}", "name": "a{{ n }}"},
            "next": [{"do": "w"}],
        },
        "w": {
            "action": "core.wait",
            "input": {"event": "go"},
            "next": [{"publish": [{"v": "{{ result() }}"}], "do": "b"}],
        },
        "b": {"action": "step", "input": {"log": "{{ log }}", "name": "b{{ n }}"}},
    },
    "output": [{"v": "{{ v }}"}],
}


def test_runs_that_wait_keep_no_others_from_their_host(
    start: Start, nodes: str, shop: Shop, tmp_path: Path
) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    log, count = str(shop.log), 80  # more than a host takes at once
    runs = [running.client.start(WAITS, log=log, n=number) for number in range(count)]
    paused = running.client.start(HELD, log=log)
    shop.wait_for(paused, "a")
    paused.pause()
    shop.let_go("b")
    shop.wait_for(paused, "b")
    other = chain(("other", "step"))
    assert running.client.run(other, log=log, timeout_s=PATIENCE_S) == {"log": log}
    kill([running.tree.broker])
    assert running.client.attach(runs[0].id).status().status == "open"
    assert running.client.run(other, log=log, timeout_s=PATIENCE_S) == {"log": log}
    for number, run in enumerate(runs):
        run.signal("go", number)
    assert [run.result(PATIENCE_S) for run in runs] == [{"v": number} for number in range(count)]
    paused.resume()
    assert paused.result(PATIENCE_S) == {"log": log}
    begun = shop.begun()
    assert {f"{name}{number}" for name in "ab" for number in range(count)} <= set(begun)
    assert {begun.count(f"a{number}") for number in range(count)} == {1}
    assert begun.count("a") == begun.count("b") == begun.count("c") == 1


def test_what_must_not_run_twice_is_not_run_again(
    start: Start, nodes: str, shop: Shop, tmp_path: Path
) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    flow = chain(("a", "step"), ("b", "once"))
    run = running.client.start(flow, log=str(shop.log))
    while "b" not in shop.begun():
        assert run.status().status == "open"
    kill([running.tree.broker])
    with pytest.raises(RunFailedError, match="must not run twice") as raised:
        run.result(PATIENCE_S)
    assert [error.task for error in raised.value.report.errors] == ["b"]
    assert shop.begun() == ["a", "b"]


def test_a_failed_run_is_tried_again_from_where_it_failed(
    start: Start, nodes: str, shop: Shop, tmp_path: Path
) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    flow = chain(("a", "step"), ("b", "checked"), ("c", "step"))
    run = running.client.start(flow, log=str(shop.log))
    with pytest.raises(RunFailedError, match="b: not yet"):
        run.result(PATIENCE_S)
    shop.let_go("b")
    run.retry()
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    assert shop.begun() == ["a", "b", "b", "c"]


def test_a_task_whose_worker_dies_is_run_again(
    start: Start, nodes: str, shop: Shop, tmp_path: Path
) -> None:
    running = start(nodes, hosts=1, data=tmp_path / "data")
    run = running.client.start(HELD, log=str(shop.log))
    while "b" not in shop.begun():
        assert run.status().status == "open"
    (worker,) = [each.pid for each in running.client.admin.workers() if not each.host]
    os.kill(worker, signal.SIGKILL)
    shop.let_go("b")
    assert run.result(PATIENCE_S) == {"log": str(shop.log)}
    assert shop.begun() == ["a", "b", "b", "c"]


def test_nothing_that_is_recorded_runs_again_while_everything_is_killed(tmp_path: Path) -> None:
    """Shortened; ``scripts/soak flows`` is the whole of it."""
    found = campaign(Path(tmp_path), 6, 17)
    assert (found.again, found.lost, found.violations) == ([], [], [])
    assert found.kills.total() == 6
