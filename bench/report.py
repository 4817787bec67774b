"""What a scenario hands back: verdicts, tables for people, raw figures for programs.

Mirror: tests/bench/test_report.py.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from .budgets import BUDGETS, Verdict
from .figures import Latency, Measurement, Spread, latency, ratio, spread
from .rounds import Rounds


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the verdict table: a ratio (or an absolute figure) against its budget."""

    budget: str
    figure: str
    value: Spread
    unit: str
    ours: Spread | None
    theirs: Spread | None
    must: float | None
    aim: float | None
    at_most: bool
    verdict: Verdict


class Table(msgspec.Struct, frozen=True):
    """A table for people: the first column is text, the others are figures already formatted."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that one scenario found.

    Attributes:
        scenario: Its name on the command line.
        question: Which question the figures answer.
        comparisons: The figures with a budget or a rival.
        tables: The same and more, for people.
        notes: What was left out in this run and why, such as a peer that is not installed.
        raw: Figures of every round of every subject, by group and name.
    """

    scenario: str
    question: str
    comparisons: list[Comparison]
    tables: list[Table]
    notes: list[str]
    raw: dict[str, Any]

    @property
    def missed(self) -> list[str]:
        """Return the budgets that were not reached."""
        return [found.budget for found in self.comparisons if found.verdict == "missed"]


class RoundFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One round of one subject, as it is kept in the raw results; microseconds."""

    calls: int
    elapsed_s: float
    per_s: float
    latency_us: Latency | None = None
    extra: dict[str, float] = {}


def compare(
    budget: str, ours: Sequence[float], theirs: Sequence[float] | None = None
) -> Comparison:
    """Hold rounds of a figure against a budget: as ratios to `theirs`, or absolute without them."""
    known = BUDGETS[budget]
    value = spread(ours) if theirs is None else ratio(ours, theirs)
    return Comparison(
        budget=budget,
        figure=known.figure,
        value=value,
        unit=known.unit,
        ours=None if theirs is None else spread(ours),
        theirs=None if theirs is None else spread(theirs),
        must=known.must,
        aim=known.aim,
        at_most=known.at_most,
        verdict=known.judge_rounds(value),
    )


def p50(rounds: Sequence[Measurement]) -> list[float]:
    """Return the median latency of each round, us."""
    return [latency(one.latencies_ns).p50 for one in rounds]


def p99(rounds: Sequence[Measurement]) -> list[float]:
    """Return the 99th percentile of each round, us."""
    return [latency(one.latencies_ns).p99 for one in rounds]


def per_second(rounds: Sequence[Measurement]) -> list[float]:
    """Return the rate of each round, calls or items per second."""
    return [one.calls * 1e9 / one.elapsed_ns for one in rounds]


def extra(rounds: Sequence[Measurement], name: str) -> list[float]:
    """Return one further figure of each round."""
    return [one.extra[name] for one in rounds]


def raw_rounds(rounds: Rounds) -> dict[str, list[RoundFigures]]:
    """Condense measurements to what is kept: the percentiles instead of each sample."""
    return {
        name: [
            RoundFigures(
                calls=one.calls,
                elapsed_s=one.elapsed_ns / 1e9,
                per_s=one.calls * 1e9 / one.elapsed_ns,
                latency_us=latency(one.latencies_ns) if one.latencies_ns else None,
                extra=one.extra,
            )
            for one in measured
        ]
        for name, measured in rounds.items()
    }


def latency_table(title: str, rounds: Rounds) -> Table:
    """Show each subject's percentiles: the median over the rounds, and the range of the p50s."""
    rows = []
    for name, measured in rounds.items():
        found = [latency(one.latencies_ns) for one in measured]
        columns = [
            spread([getattr(one, field) for one in found])
            for field in ("p50", "p90", "p99", "p999", "max")
        ]
        rows.append(
            (
                name,
                *(number(column.median) for column in columns),
                f"{number(columns[0].low)}..{number(columns[0].high)}",
                f"{sum(one.calls for one in measured):,}",
            )
        )
    head = (title, "p50 us", "p90", "p99", "p99.9", "max", "p50 of rounds", "calls")
    return Table(title, head, rows)


def rate_table(title: str, rounds: Rounds, unit: str) -> Table:
    """Show each subject's rate and its range over the rounds."""
    rows = []
    for name, measured in rounds.items():
        found = spread(per_second(measured))
        rows.append((name, number(found.median), f"{number(found.low)}..{number(found.high)}"))
    return Table(title, (title, unit, "rounds"), rows)


def number(value: float) -> str:
    """Format a figure with three significant digits, thousands with separators."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 1 else f"{value:.3f}"
