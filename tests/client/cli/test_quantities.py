"""Mirror of client/cli/quantities.py."""

import pytest

from pronghorn.client.cli.quantities import (
    age_text,
    bytes_text,
    count_text,
    duration_text,
    rate_text,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (9_999, "9,999"),
        (9_999.7, "10.0k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_600, "1.00M"),
        (4_560_000, "4.56M"),
        (10**15, "1000T"),
    ],
)
def test_counts(count: float, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(("rate", "text"), [(0, "0"), (0.25, "0.2"), (9.9, "9.9"), (9.97, "10")])
def test_rates(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0"),
        (850, "850 ns"),
        (999.7, "1.00 us"),
        (12_340, "12.3 us"),
        (4_560_000, "4.56 ms"),
        (78_000_000_000, "78.0 s"),
        (780_000_000_000, "780 s"),
    ],
)
def test_durations(ns: float, text: str) -> None:
    assert duration_text(ns) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (42, "42 s"), (185, "3 min 5 s"), (7_260, "2 h 1 min"), (187_200, "2 d 4 h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (512, "512 B"), (12_300_000, "12.3 MB"), (5e12, "5000 GB")],
)
def test_sizes(count: float | None, text: str) -> None:
    assert bytes_text(count) == text
