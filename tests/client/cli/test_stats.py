"""``pronghorn stats``: tables for people, plain text for pipes, JSON for programs."""

import json
import os
import re
import signal

import msgspec
import pytest
from commands import Commands

from pronghorn.broker.wire.statistics import Statistics

pytestmark = pytest.mark.slow


def test_json_is_the_whole_snapshot(served: Commands) -> None:
    assert served("call", "add", "a=1", "b=2").status == 0
    assert served("call", "divide", "a=0").status == 1
    done = served("stats", "--json")
    assert (done.status, done.errors, done.raw.count(b"\n")) == (0, "", 1)
    statistics = msgspec.json.decode(done.raw, type=Statistics)
    nodes = {node.name: node for node in statistics.nodes}
    assert nodes["nodes.add"].calls >= 1
    assert nodes["nodes.divide"].errors["NODE_ERROR"] >= 1
    assert [worker.state for worker in statistics.workers] == ["ready", "ready"]
    assert all((worker.memory_bytes or 0) > 1_000_000 for worker in statistics.workers)
    assert statistics.at > statistics.started_at > 0


def test_a_pipe_gets_plain_text(served: Commands) -> None:
    served("call", "add", "a=1", "b=2")
    done = served("stats")
    assert (done.status, done.errors) == (0, "")
    assert "requests    " in done.output
    assert "nodes.add" in done.output
    assert "\x1b" not in done.output
    assert "pronghorn.nodes  0" not in done.output


def test_a_terminal_of_80_columns_shows_each_node_on_one_line(served: Commands) -> None:
    served("call", "add", "a=1", "b=2")
    shown = served.on_terminal("stats")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    lines = [line.rstrip() for line in plain.replace("\r", "").split("\n")]
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.split()[:1] == ["add"]]
    assert [line for line in lines if line.split()[:1] == ["Worker"]]


def test_a_watch_goes_on_until_it_is_interrupted(served: Commands) -> None:
    with served.start("stats", "--watch", "--json") as watching:
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        os.kill(watching.pid, signal.SIGINT)
        watching.communicate()
    assert watching.returncode == 0
    assert lines[0]["epoch"] == lines[1]["epoch"]
    assert lines[1]["at"] > lines[0]["at"]


def test_absent_broker_is_told(commands: Commands) -> None:
    done = commands("stats")
    assert done.status == 3
    assert "no broker at" in done.errors
