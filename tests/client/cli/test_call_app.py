"""The commands ``call`` and ``map``: help and usage errors."""

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["call", "map"])
def test_help_and_json(name: str, commands: Commands) -> None:
    assert f"pronghorn {name} add " in commands.shows_help(name)


def test_a_node_is_needed(commands: Commands) -> None:
    assert "NODE" in commands.refuses("call")
