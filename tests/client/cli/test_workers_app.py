"""The commands of ``workers``: their help."""

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["list", "recycle", "scale", "drain"])
def test_help_and_json(name: str, commands: Commands) -> None:
    assert "--endpoint" in commands.shows_help("workers", name)
