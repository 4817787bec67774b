"""The command ``load``: help, and what is not imported for it."""

import pytest
from commands import HEAVY, Commands, imported_by

pytestmark = pytest.mark.slow


def test_help_and_json(commands: Commands) -> None:
    shown = commands.shows_help("load")
    assert "pronghorn load compare before/record.json after/record.json" in shown
    for choice in ("const", "step", "ramp", "spike", "poisson", "req", "none"):
        assert choice in shown


def test_help_imports_nothing_heavy() -> None:
    imported = imported_by("load", "--help")
    assert "pronghorn.client.cli.load_app" in imported
    assert sorted(imported.intersection(HEAVY)) == []
