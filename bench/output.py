"""Reports for people (tables) and for programs (one JSON object a run).

Mirror: tests/bench/test_output.py.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table as RichTable

from .environment import Environment
from .report import Comparison, Report, Table, number

_STYLES = {"aim": "green", "must": "yellow", "missed": "bold red", "printed": "dim"}


def print_report(report: Report, console: Console) -> None:
    """Print a scenario's tables, then its verdicts and notes."""
    console.print(f"\n[bold]{report.scenario}[/bold]  {report.question}")
    for table in report.tables:
        console.print(_table(table))
    if report.comparisons:
        console.print(_verdicts(report.comparisons))
    for note in report.notes:
        console.print(f"[dim]Note: {note}[/dim]")


def print_environment(environment: Environment, console: Console) -> None:
    """Print what a reader needs to place the figures."""
    commit = (environment.commit or "unknown commit")[:12]
    dirty = " with uncommitted changes" if environment.uncommitted_changes else ""
    versions = ", ".join(
        f"{name} {version}" for name, version in environment.packages.items() if version
    )
    console.print(
        f"[dim]{environment.cpu}, {environment.cores_allowed} of {environment.cores} cores shared "
        f"by load and server, governor {environment.governor or 'unknown'}, "
        f"load {environment.load_average_1_min:.2f}, Linux {environment.kernel}\n"
        f"{environment.python}, {versions}, libzmq {environment.libzmq}; "
        f"{environment.installed_as}, {commit}{dirty}[/dim]",
        soft_wrap=True,
    )


def as_json(reports: list[Report], environment: Environment) -> bytes:
    """Encode reports with the environment they were measured in; tables are for people only."""
    return msgspec.json.format(
        msgspec.json.encode({"environment": environment, "scenarios": [_plain(r) for r in reports]})
    )


def keep(report: Report, environment: Environment, folder: Path) -> Path:
    """Write one scenario's raw result into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.scenario}.json"
    path.write_bytes(as_json([report], environment) + b"\n")
    return path


def stdout_console() -> Console:
    """Return a console for the report; wide enough for the tables when output is no terminal."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 140)


def stderr_progress(message: str) -> None:
    """Say what goes on, apart from the report."""
    print(message, file=sys.stderr, flush=True)


def _plain(report: Report) -> dict[str, Any]:
    return {
        "scenario": report.scenario,
        "question": report.question,
        "comparisons": report.comparisons,
        "notes": report.notes,
        "raw": report.raw,
    }


def _table(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    shown.add_column(table.columns[0])
    for column in table.columns[1:]:
        shown.add_column(column, justify="right")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _verdicts(comparisons: list[Comparison]) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    shown.add_column("compared")
    for column in ("ours", "theirs", "figure", "of rounds", "must", "aim", "verdict"):
        shown.add_column(column, justify="right")
    for found in comparisons:
        style = _STYLES[found.verdict]
        shown.add_row(
            found.figure,
            number(found.ours.median) if found.ours else "",
            number(found.theirs.median) if found.theirs else "",
            f"{number(found.value.median)} {found.unit}".rstrip(),
            f"{number(found.value.low)}..{number(found.value.high)}",
            _bound(found.must, found.at_most),
            _bound(found.aim, found.at_most),
            f"[{style}]{found.verdict}[/{style}]",
        )
    return shown


def _bound(bound: float | None, at_most: bool) -> str:
    return "" if bound is None else f"{'≤' if at_most else '≥'} {number(bound)}"
