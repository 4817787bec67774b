"""``pronghorn run --durability`` against a real broker with a journal."""

import json
from collections.abc import Iterator

import pytest
from commands import Commands

pytestmark = pytest.mark.slow

FLOW = """
name: sums
input: [a, {b: 1}]
tasks:
  one: {action: add, input: {a: "{{ a }}", b: "{{ b }}"},
        next: [{when: "{{ succeeded() }}", publish: [{c: "{{ result() }}"}]}]}
output: [{c: "{{ c }}"}]
"""


@pytest.fixture(scope="module")
def shop(make_commands: "object") -> Iterator[Commands]:
    """Commands in a folder where nodes are served, with a journal."""
    commands: Commands = make_commands()  # type: ignore[operator]
    (commands.folder / "sums.yaml").write_text(FLOW)
    with commands.serving("nodes.py", "sums.yaml", "--workers", "1", "--data", "journal"):
        yield commands


def test_a_recorded_run_shows_what_is_recorded_and_prints_its_output(shop: Commands) -> None:
    done = shop("run", "sums.yaml", "a=2", "b=3", "--durability", "batched")
    assert (done.status, json.loads(done.output)) == (0, {"c": 5})
    first, *lines = done.errors.splitlines()
    assert first.startswith("run ")
    assert lines == ["✓ one"]
    *events, last = shop("run", "sums", "a=2", "--durability", "sync", "--json").output.splitlines()
    assert json.loads(events[0])["event"] == "accepted"
    assert json.loads(last) == {"output": {"c": 3}}


def test_a_detached_run_is_looked_at_by_its_id(shop: Commands) -> None:
    run = shop("run", "sums", "a=2", "--detach", "--key", "order-17").output.strip()
    assert shop("run", "sums", "a=2", "--detach", "--key", "order-17").output.strip() == run
    assert json.loads(
        shop("run", "sums", "a=2", "--key", "order-17", "--json").output.splitlines()[-1]
    )
    shown = json.loads(shop("runs", "show", run, "--data", "journal", "--json").output)
    assert (shown["node"], shown["status"]) == ("sums", "done")
    assert shop("runs", "events", run, "--data", "journal").status == 0
    assert json.loads(shop("runs", "result", run, "--data", "journal").output) == {"c": 3}


def test_a_recorded_run_that_fails_is_told(shop: Commands) -> None:
    done = shop("run", "sums.yaml", "a=x", "--durability", "sync")
    assert done.status == 1
    assert "✗ one" in done.errors
    assert "one: nodes.add: Expected `int`, got `str`" in done.errors


def test_modules_of_its_own_are_refused(shop: Commands) -> None:
    done = shop("run", "sums.yaml", "a=1", "--detach", "--with", "nodes.py")
    assert done.status == 2
    assert "needs a broker that stays" in done.errors
