"""The commands ``nodes``, ``ping``, ``reload`` and ``stats``: help and usage errors."""

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["nodes", "ping", "reload", "stats"])
def test_help_and_json(name: str, commands: Commands) -> None:
    assert "--endpoint" in commands.shows_help(name)


def test_wrong_options_are_refused(commands: Commands) -> None:
    assert "--count" in commands.refuses("ping", "--count", "0")
    assert "--what" in commands.refuses("nodes", "--what")
