"""``pronghorn nodes``: for people, for pipes, for programs."""

import json

import pytest
from commands import Commands

from pronghorn.broker.wire.values import NodeDescription
from pronghorn.client.cli.listing import row


def test_row_has_the_first_line_of_the_doc() -> None:
    description = NodeDescription(
        "shop.sell", ("sell",), "inline", "sell()", "Sell.\n\nAll.", {}, {}
    )
    assert row(description) == ("shop.sell", "sell()", "Sell.")


@pytest.mark.slow
def test_piped_list_is_aligned_and_whole(served: Commands) -> None:
    done = served("nodes")
    assert (done.status, done.errors) == (0, "")
    heading, first, *_ = done.output.splitlines()
    assert heading.split() == ["Name", "Signature", "Description"]
    assert first.split("  ")[0] == "nodes.add"
    assert first.endswith("Sum of two integers.")
    assert "\x1b" not in done.output
    at = heading.index("Signature")
    assert first[at:].startswith("add(a: int, b: int) -> int  ")


@pytest.mark.slow
def test_terminal_gets_a_table(served: Commands) -> None:
    shown = served.on_terminal("nodes")
    assert "nodes.add" in shown
    assert "───" in shown


@pytest.mark.slow
def test_json_has_schemas(served: Commands) -> None:
    nodes = {node["name"]: node for node in json.loads(served("nodes", "--json").output)}
    assert nodes["nodes.add"]["params"]["properties"]["a"] == {"type": "integer"}
    assert nodes["nodes.add"]["doc"] == "Sum of two integers.\n\nBoth are needed."
    assert json.loads(served.on_terminal("nodes", "--json"))


@pytest.mark.slow
def test_absent_broker_is_told(commands: Commands) -> None:
    done = commands("nodes", "--json")
    assert (done.status, done.output) == (3, "")
    assert json.loads(done.errors)["error"]["code"] == "BROKER_LOST"
