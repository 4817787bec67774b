"""The command line itself: help, usage errors, and what is not imported for them."""

import subprocess
import sys
from time import perf_counter

import pytest
from commands import COMMAND, Commands

COMMAND_NAMES = [
    *("serve", "call", "map", "load", "nodes", "ping", "reload", "stats", "workers"),
    *("rehearse", "validate", "graph", "version"),
]
GROUPS = ["runs", "journal"]
HELP_S = 0.3
HEAVY = (
    *("jinja2", "yaml", "zmq", "lmdb", "asyncio", "uvloop", "rich"),
    *("pronghorn.client.sync", "pronghorn.client.launch"),
)

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


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in COMMAND_NAMES if name != "workers"),
        *(["workers", name] for name in ("list", "recycle", "scale", "drain")),
    ],
    ids=" ".join,
)
def test_each_command_has_help_and_json(words: list[str], commands: Commands) -> None:
    shown = commands(*words, "--help")
    assert shown.status == 0
    assert "--json" in shown.output


def test_help_takes_little_time() -> None:
    best = min(_seconds([*COMMAND, "--help"]) for _ in range(5))
    assert best <= HELP_S


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["load", "--help"], ["call"]]
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    traced = subprocess.run(command, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip() for line in traced.splitlines()}
    assert "typer" in imported
    assert sorted(imported.intersection(HEAVY)) == []


@pytest.mark.parametrize(
    "arguments", [["cal"], ["call"], ["serve"], ["ping", "--count", "0"], ["nodes", "--what"]]
)
def test_wrong_usage_ends_with_2_and_nothing_on_standard_output(
    arguments: list[str], commands: Commands
) -> None:
    done = commands(*arguments)
    assert (done.status, done.output) == (2, "")
    assert "Usage: pronghorn" in done.errors
    assert "Traceback" not in done.errors


def _seconds(command: list[str]) -> float:
    begun = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - begun
