"""Mirror of client/cli/options.py: a command made of all of them, in this process."""

from typing import Any, get_args

import typer
from typer.testing import CliRunner

from pronghorn.broker.journal.record import KeptDurability
from pronghorn.broker.wire.messages import Durability
from pronghorn.client.cli.options import (
    AsJson,
    DurabilityName,
    Endpoint,
    KeptDurabilityName,
    Name,
    Node,
    Priority,
    Timeout,
)


def take(*arguments: str) -> list[tuple[Any, ...]]:
    """Give arguments to a command that has all options; return what it was called with."""
    app = typer.Typer(rich_markup_mode=None)
    taken: list[tuple[Any, ...]] = []

    @app.command()
    def command(
        node: Node,
        endpoint: Endpoint = None,
        name: Name = None,
        timeout: Timeout = None,
        priority: Priority = None,
        as_json: AsJson = False,
    ) -> None:
        taken.append((node, endpoint, name, timeout, priority, as_json))

    CliRunner().invoke(app, arguments)
    return taken


def test_only_the_node_is_needed() -> None:
    assert take() == []
    assert take("add") == [("add", None, None, None, None, False)]


def test_each_is_given_by_the_name_it_has_everywhere() -> None:
    options = ["--endpoint", "ipc:///a", "--name", "shop", "--timeout", "1.5", "--priority", "2"]
    assert take("add", *options, "--json") == [("add", "ipc:///a", "shop", 1.5, 2, True)]


def test_numbers_are_numbers() -> None:
    assert take("add", "--timeout", "soon") == []
    assert take("add", "--priority", "high") == []


def test_durabilities_are_those_of_the_protocol() -> None:
    assert tuple(DurabilityName) == get_args(Durability)
    assert set(KeptDurabilityName) == set(get_args(KeptDurability))
