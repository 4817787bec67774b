"""``pronghorn workers`` and ``pronghorn reload`` against a real broker."""

import json
from collections.abc import Iterator

import pytest
from commands import Commands

from pronghorn.broker.wire.administration import WorkerReport
from pronghorn.client.cli.administering import row

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(make_commands: "object") -> Iterator[Commands]:
    """Commands in a folder where two workers serve."""
    commands: Commands = make_commands()  # type: ignore[operator]
    with commands.serving("nodes.py", "--workers", "2"):
        yield commands


def test_workers_are_a_table_or_json(shop: Commands) -> None:
    shown = shop("workers", "list")
    assert shown.status == 0
    heading, *lines = shown.output.splitlines()
    assert heading.split() == [
        *("Worker", "Pid", "State", "Generation", "In", "flight", "Requests"),
        *("Age", "Memory", "Restarts"),
    ]
    assert len(lines) == 2
    assert all(" ready " in line for line in lines)
    listed = json.loads(shop("workers", "list", "--json").output)
    assert [worker["state"] for worker in listed] == ["ready", "ready"]
    assert listed[0].keys() == {*WorkerReport.__struct_fields__}


def test_orders_tell_what_was_done(shop: Commands) -> None:
    assert shop("workers", "scale", "3") == (0, b"3 ready\n", "")
    assert shop("workers", "recycle") == (0, b"3 recycled\n", "")
    worker = json.loads(shop("workers", "list", "--json").output)[-1]["id"]
    assert shop("workers", "recycle", str(worker), "--json").output == '{"recycled":1}\n'
    worker = json.loads(shop("workers", "list", "--json").output)[-1]["id"]
    assert shop("workers", "drain", str(worker)).output == f"worker {worker} has ended\n"
    shop("workers", "scale", "2")


def test_a_reload_tells_what_is_new(shop: Commands) -> None:
    module = shop.folder / "nodes.py"
    text = module.read_text()
    module.write_text(text + "\n@node\ndef brand_new() -> int:\n    return 1\n")
    shown = shop("reload")
    assert shown.status == 0
    count = len(json.loads(shop("nodes", "--json").output))
    assert shown.output.endswith(f"serves {count} nodes\n  + nodes.brand_new\n")
    module.write_text("boom(")
    shown = shop("reload")
    assert (shown.status, shown.output) == (1, "")
    assert "what was served before still is" in shown.errors
    assert "SyntaxError" in shown.errors
    module.write_text(text)
    assert shop("reload").output.endswith("  - nodes.brand_new\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scale", "0"], "a pool needs at least 1"),
        (["scale", "-2"], "workers is -2"),
        (["scale", "10000"], "a pool has at most 1000"),
        (["scale", "many"], "valid integer"),
        (["drain", "99"], "no worker 99 serves"),
        (["recycle", "99"], "no worker 99 serves"),
    ],
)
def test_wrong_orders_are_wrong_usage(shop: Commands, words: list[str], told: str) -> None:
    shown = shop("workers", *words)
    assert (shown.status, shown.output) == (2, "")
    assert told in shown.errors


def test_without_a_broker_there_is_nobody_to_ask(commands: Commands) -> None:
    for words in (["workers", "list"], ["reload"]):
        assert commands(*words).status == 3


@pytest.mark.parametrize(
    ("age_s", "cell"),
    [(5.9, "5 s"), (125.0, "2 min 5 s"), (10_800.0, "3 h 0 min"), (180_000.0, "2 d 2 h")],
)
def test_ages_have_two_units(age_s: float, cell: str) -> None:
    worker = WorkerReport(
        id=1,
        pid=0,
        state="starting",
        generation=0,
        in_flight=0,
        requests=0,
        age_s=age_s,
        memory_bytes=2**20,
        restarts=0,
    )
    assert row(worker)[1] == "-"
    assert row(worker)[6:8] == (cell, "1.0 MiB")
