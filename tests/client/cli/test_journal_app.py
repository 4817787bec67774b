"""The commands of ``runs`` and ``journal``: help, and what is not imported for it."""

import pytest
from commands import HEAVY, Commands, imported_by

NAMES = {
    "runs": ["list", "show", "result", "events", "cancel", "retry", "prune"],
    "journal": ["stat", "verify", "compact", "backup", "export"],
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("group", NAMES)
def test_help_names_the_commands(group: str, commands: Commands) -> None:
    shown = commands(group, "--help")
    assert shown.status == 0
    for name in NAMES[group]:
        assert f"\n  {name} " in shown.output
    assert "..." not in shown.output.partition("Commands:")[2], "nothing is cut"


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in NAMES for name in NAMES[group]]
)
def test_each_command_has_help_and_json(group: str, name: str, commands: Commands) -> None:
    where = "--endpoint" if name in ("cancel", "retry") else "--data"
    assert where in commands.shows_help(group, name)


def test_help_imports_nothing_heavy() -> None:
    imported = imported_by("runs", "list", "--help")
    assert "pronghorn.client.cli.journal_app" in imported
    assert sorted(imported.intersection(HEAVY)) == []
