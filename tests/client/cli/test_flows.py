"""``pronghorn run``."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow

FLOW = """
name: sums
input: [a, {b: 1}]
tasks:
  one: {action: add, input: {a: "{{ a }}", b: "{{ b }}"},
        next: [{when: "{{ succeeded() }}", publish: [{c: "{{ result() }}"}], do: all}]}
  all: {with: "{{ [1, 2] }}", action: add, input: {a: "{{ item() }}", b: "{{ c }}"},
        next: [{publish: [{cs: "{{ result() }}"}]}]}
output: [{cs: "{{ cs }}"}]
"""


def test_a_run_shows_its_tasks_and_prints_its_output(served: Commands) -> None:
    (served.folder / "sums.yaml").write_text(FLOW)
    (served.folder / "a.json").write_text("2")
    done = served("run", "sums.yaml", "a=@a.json", "b=3")
    assert (done.status, json.loads(done.output)) == (0, {"cs": [6, 7]})
    lines = done.errors.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [
        ["✓", "one"],
        ["✓", "all"],
        ["sums", "succeeded"],
    ]
    events = served("run", "sums.yaml", "-", "--json", stdin='{"a": 1}').output.splitlines()
    assert json.loads(events[0])["kind"] == "begun"
    assert json.loads(events[-1])["output"] == {"cs": [3, 4]}


def test_a_run_that_fails(served: Commands) -> None:
    (served.folder / "sums.yaml").write_text(FLOW)
    done = served("run", "sums.yaml", "a=x")
    assert done.status == 1
    assert "✗ one failed" in done.errors
    assert "error: sums: one: nodes.add: Expected `int`, got `str`" in done.errors


def test_a_pool_of_its_own(commands: Commands) -> None:
    (commands.folder / "sums.yaml").write_text(FLOW)
    done = commands("run", "sums.yaml", "a=1", "--with", "nodes.py", "--workers", "1")
    assert (done.status, json.loads(done.output)) == (0, {"cs": [3, 4]})
    assert commands("run", "nix.yaml").status == 2
    assert commands("run", "sums.yaml", "a=1").status == 3
