"""Comparisons, tables and raw figures from measurements made by hand."""

import msgspec
import pytest

from pronghorn.bench.figures import Measurement, Spread
from pronghorn.bench.report import (
    Report,
    compare,
    extra,
    latency_table,
    number,
    p50,
    p99,
    per_second,
    rate_table,
    raw_rounds,
)

ROUNDS = {
    "ours": [
        Measurement(
            calls=2, elapsed_ns=1_000_000_000, latencies_ns=[1000, 3000], extra={"cpu": 4.0}
        )
    ]
}


def test_a_ratio_is_judged_by_its_median() -> None:
    found = compare("rtt.sync", [1.0, 1.3, 3.0], [1.0, 1.0, 1.0])
    assert found.value == Spread(median=1.3, low=1.0, high=3.0)
    assert found.verdict == "must"
    assert found.ours == found.value


def test_an_absolute_figure_has_no_rival() -> None:
    found = compare("start.first_call", [0.2, 0.7, 0.8])
    assert (found.value.median, found.unit, found.theirs) == (0.7, "s", None)
    assert found.verdict == "missed"


def test_figures_of_rounds() -> None:
    assert p50(ROUNDS["ours"]) == [1.0]
    assert p99(ROUNDS["ours"]) == [3.0]
    assert per_second(ROUNDS["ours"]) == [2.0]
    assert extra(ROUNDS["ours"], "cpu") == [4.0]


def test_tables_have_a_row_per_subject() -> None:
    (row,) = latency_table("t", ROUNDS).rows
    assert row == ("ours", "1.00", "3.00", "3.00", "3.00", "3.00", "1.00..1.00", "2")
    assert rate_table("t", ROUNDS, "calls/s").rows == [("ours", "2.00", "2.00..2.00")]


def test_raw_rounds_keep_percentiles_not_samples() -> None:
    (kept,) = msgspec.to_builtins(raw_rounds(ROUNDS))["ours"]
    assert kept["latency_us"]["p50"] == 1.0
    assert kept["extra"] == {"cpu": 4.0}
    assert "latencies_ns" not in kept


def test_missed_budgets_are_listed() -> None:
    report = Report(
        scenario="s",
        question="q",
        comparisons=[compare("rtt.sync", [9.0], [1.0]), compare("rtt.async", [1.0], [1.0])],
        tables=[],
        notes=[],
        raw={},
    )
    assert report.missed == ["rtt.sync"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12345, "0.123"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234567.0, "1,234,567"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
