"""The commands ``rehearse``, ``validate`` and ``graph``: their help."""

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["rehearse", "validate", "graph"])
def test_help_and_json(name: str, commands: Commands) -> None:
    assert f"pronghorn {name} " in commands.shows_help(name).partition("Examples:")[2]
