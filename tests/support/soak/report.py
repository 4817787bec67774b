"""What the soaks have found, as tables for people and as JSON for programs."""

import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from .campaign import Findings

WIDTH: Final = 160  # of what is not shown in a terminal

R = TypeVar("R")

_TOLD = ("result", "not_started", "maybe_executed", "executed", "withdrawn")


def print_results(
    results: Sequence[R], as_table: Callable[[Sequence[R]], Table], *, as_json: bool
) -> None:
    """Print results to standard output, as JSON or as the table that is made of them."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(results)).decode())
    else:
        width = None if sys.stdout.isatty() else WIDTH
        Console(highlight=False, width=width).print(as_table(results))


def findings_table(runs: Sequence[Findings]) -> Table:
    """Show one run of faults a row."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("faults")
    for column in (
        "number",
        "seconds",
        "calls",
        *(name.replace("_", " ") for name in _TOLD),
        "workers lost",
        "broker lost",
        "late s",
        "quick p50 ms",
        "p99",
        "max",
        "broken",
        "seed",
    ):
        shown.add_column(column, justify="right")
    for one in runs:
        told, codes = one.verdict.told, one.verdict.codes
        broken = len(one.violations)
        shown.add_row(
            one.kind,
            f"{sum(one.faults.values()):,}",
            f"{one.seconds:.0f}",
            f"{one.verdict.calls:,}",
            *(f"{told.get(name, 0):,}" for name in _TOLD),
            f"{codes.get('WORKER_LOST', 0):,}",
            f"{codes.get('BROKER_LOST', 0):,}",
            f"{one.verdict.late_s:.2f}",
            f"{one.canary_p50_ms:.1f}",
            f"{one.canary_p99_ms:.1f}",
            f"{one.canary_max_ms:.0f}",
            f"[bold red]{broken}[/bold red]" if broken else "[green]0[/green]",
            str(one.seed),
        )
    return shown
