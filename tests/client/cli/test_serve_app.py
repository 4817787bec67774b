"""The command ``serve``: help, usage errors, and what is not imported for them."""

import pytest
from commands import HEAVY, Commands, imported_by

pytestmark = pytest.mark.slow


def test_help_and_json(commands: Commands) -> None:
    shown = commands.shows_help("serve")
    assert "pronghorn serve nodes.py --workers 2" in shown
    for level in ("debug", "info", "warning", "error", "human", "json"):
        assert level in shown


def test_help_imports_nothing_heavy() -> None:
    imported = imported_by("serve", "--help")
    assert "pronghorn.client.cli.serve_app" in imported
    assert sorted(imported.intersection(HEAVY)) == []


def test_a_module_is_needed(commands: Commands) -> None:
    assert "MODULE" in commands.refuses("serve")
