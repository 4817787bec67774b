"""The command line itself: help, usage errors, and what is not imported for them."""

import resource
import subprocess

import pytest
from commands import COMMAND, HEAVY, Commands, imported_by

COMMAND_NAMES = [
    *("serve", "call", "map", "load", "nodes", "ping", "reload", "stats", "workers"),
    *("rehearse", "validate", "graph", "version", "conformance", "stubs"),
]
GROUPS = ["runs", "journal", "keys"]
HELP_S = 0.3

pytestmark = pytest.mark.slow


def test_help_names_the_commands_and_the_exit_codes(commands: Commands) -> None:
    shown = commands("--help")
    assert shown.status == 0
    for name in COMMAND_NAMES + GROUPS:
        assert f"\n  {name} " in shown.output
    assert "..." not in shown.output.partition("Commands:")[2], "nothing is cut"
    for code in ("0", "1", "2", "3", "4", "5", "130"):
        assert f"\n    {code} " in shown.output


def test_no_command_shows_help(commands: Commands) -> None:
    shown = commands()
    assert "Commands:" in shown.output + shown.errors


def test_help_takes_little_time() -> None:
    best = min(_cpu_seconds([*COMMAND, "--help"]) for _ in range(5))
    assert best <= HELP_S


@pytest.mark.parametrize("arguments", [["--help"], ["call"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    imported = imported_by(*arguments)
    assert "typer" in imported
    assert sorted(imported.intersection(HEAVY)) == []


def test_version_has_help_and_json(commands: Commands) -> None:
    commands.shows_help("version")


def test_an_unknown_command_is_wrong_usage(commands: Commands) -> None:
    assert "'cal'" in commands.refuses("cal")


def _cpu_seconds(command: list[str]) -> float:
    """Run a command; returns the CPU time that it took, for others may have the cores as well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
