"""``pronghorn map --durability`` against real brokers, with a journal and without."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import TIMEOUT_S, Commands

from pronghorn.client import Pool

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(make_commands: Any) -> Iterator[Commands]:
    """Commands in a folder where nodes are served, with a journal."""
    commands: Commands = make_commands()
    with commands.serving("nodes.py", "--workers", "1", "--data", "journal"):
        yield commands


def runs(shop: Commands, *arguments: str) -> Any:
    return json.loads(shop("runs", "list", "--data", "journal", "--json", *arguments).output)


@pytest.mark.parametrize("durability", ["sync", "batched"])
def test_a_recorded_map_prints_results_in_order_and_its_id(durability: str, shop: Commands) -> None:
    items = "".join(f"[{number},1]\n" for number in range(500))
    done = shop("map", "add", "--durability", durability, stdin=items)
    assert (done.status, done.output.split()) == (0, [str(number) for number in range(1, 501)])
    said, run = done.errors.split()
    shown = json.loads(shop("runs", "show", run, "--data", "journal", "--json").output)
    assert (said, shown["durability"], shown["items"]) == ("run", durability, 500)
    done = shop("map", "add", "--durability", durability, "--json", "--unordered", stdin=items)
    assert sorted(map(int, done.output.split())) == list(range(1, 501))
    assert done.errors == ""


def test_none_is_not_recorded(shop: Commands) -> None:
    before = len(runs(shop))
    assert shop("map", "add", "--durability", "none", stdin="[1,2]\n") == (0, b"3\n", "")
    assert len(runs(shop)) == before


def test_a_key_leads_to_the_results_of_the_first_map(shop: Commands) -> None:
    first = shop("map", "add", "--key", "may", "--json", stdin='{"a":1,"b":2}\n')
    assert first == shop("map", "add", "--key", "may", "--json", stdin='{"a":1,"b":2}\n')
    assert first == (0, b"3\n", "")
    other = shop("map", "add", "--key", "may", stdin="[1,3]\n")
    assert (other.status, other.output) == (2, "")
    assert "error: nodes.add: the key 'may' has a run already, with other params" in other.errors


def test_a_detached_map_is_looked_at_by_its_id(shop: Commands) -> None:
    run = shop("map", "add", "--detach", "--key", "june", stdin="[1,2]\n[3,4]\n").output.strip()
    again = shop("map", "add", "--detach", "--key", "june", "--json", stdin="[1,2]\n[3,4]\n")
    assert json.loads(again.output) == {"id": run}
    whole = shop("map", "add", "--key", "june", stdin="[1,2]\n[3,4]\n")
    assert whole == (0, b"3\n7\n", f"run {run}\n")
    assert json.loads(shop("runs", "result", run, "--data", "journal").output) == [3, 7]


def test_failures_are_told_as_of_other_maps(shop: Commands) -> None:
    items = '[1]\n[0]\n{"a":"x"}\n[-1]\n'
    done = shop("map", "divide", "--durability", "sync", "--keep-going", stdin=items)
    results = [json.loads(line) for line in done.output.splitlines()]
    assert (done.status, results[0], results[3]) == (1, 1, -1)
    assert [one["error"]["code"] for one in results[1:3]] == ["NODE_ERROR", "INVALID_ARGUMENT"]
    assert [one["error"]["item"] for one in results[1:3]] == [1, 2]
    assert done.errors.endswith("warning: 2 of 4 items failed\n")
    done = shop("map", "divide", "--durability", "sync", stdin=items)
    assert (done.status, done.output) == (1, "1\n")
    assert "error: item 2: ZeroDivisionError: " in done.errors


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "told"),
    [
        (["add", "--durability", "sync"], "[1,2]\n5\n", 2, "line 2: params are a JSON object"),
        (["add", "--durability", "sync", "--chunk-size", "5"], "", 2, "leave out --chunk-size"),
        (["add", "--detach", "--durability", "none"], "[1,2]", 2, "durability is batched or sync"),
        (["add", "--key", ""], "[1,2]", 2, "it must be a text of 1 to 255 bytes"),
        (["add", "--key", "x" * 256], "[1,2]", 2, "it must be a text of 1 to 255 bytes"),
        (["ad", "--durability", "sync"], "[1,2]", 2, "no node named 'ad'"),
        (["add", "--durability", "sync", "gone"], "", 2, "can't read gone: No such file"),
        (["add", "--durability", "sync", "--name", "nobody"], "", 3, "no broker at ipc://"),
        (["add", "--durability", "sync"], "[1,2]\n" * 100_001, 2, "at most 100,000 items"),
    ],
)
def test_what_can_not_be_recorded_is_told_and_nothing_is_started(
    arguments: list[str], stdin: str, status: int, told: str, shop: Commands
) -> None:
    before = len(runs(shop))
    done = shop("map", *arguments, stdin=stdin)
    assert (done.status, done.output) == (status, "")
    assert told in done.errors
    assert len(runs(shop)) == before


def test_what_is_no_durability_is_refused(commands: Commands) -> None:
    assert "'fsync' is not one of" in commands.refuses("map", "add", "--durability", "fsync")


def test_a_broker_without_a_journal_says_so(commands: Commands, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(commands.folder))
        with Pool(commands.folder / "nodes.py", workers=1, name="bare"):
            done = commands("map", "add", "--durability", "sync", "--name", "bare", stdin="[1,2]")
    assert (done.status, done.output) == (5, "")
    assert "nodes.add can't be recorded: this pool has no journal: give it a folder" in done.errors


def test_an_interrupt_does_not_stop_the_run(shop: Commands) -> None:
    told = shop.folder / "told"
    with shop.start("map", "linger", "--durability", "sync") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f'["{told}"]\n'.encode())
        process.stdin.close()
        process.stdin = None
        run = process.stderr.readline().split()[1].decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
    assert run in [one["id"] for one in runs(shop, "--status", "open")]
    cancelled = shop("runs", "cancel", run)
    assert cancelled.status == 0
