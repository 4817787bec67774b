"""Percentiles, spreads and ratios against values worked out by hand."""

import pytest

from pronghorn.bench.figures import (
    Latency,
    Measurement,
    Spread,
    latency,
    median,
    merge,
    percentile,
    ratio,
    spread,
)


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_percentile_is_an_observed_value(fraction: float, expected: int) -> None:
    assert percentile(range(1, 101), fraction) == expected


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert percentile([7.0], 0.001) == 7.0


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_percentile_refuses_fractions_outside_zero_to_one(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        percentile([1.0], fraction)


def test_percentile_and_median_refuse_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_median_of_odd_and_even_counts() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5


def test_latency_sorts_and_converts_to_microseconds() -> None:
    samples = [index * 1000 for index in range(1000, 0, -1)]
    assert latency(samples) == Latency(p50=500.0, p90=900.0, p99=990.0, p999=999.0, max=1000.0)


def test_spread_is_median_and_extremes() -> None:
    assert spread([5.0, 1.0, 3.0]) == Spread(median=3.0, low=1.0, high=5.0)


def test_ratio_is_formed_round_by_round() -> None:
    # The ratio of the medians would be 2 / 2 = 1.
    assert ratio([1.0, 2.0, 8.0], [2.0, 1.0, 2.0]) == Spread(median=2.0, low=0.5, high=4.0)


def test_ratio_refuses_unequal_numbers_of_rounds() -> None:
    with pytest.raises(ValueError, match="1 rounds against 2"):
        ratio([1.0], [1.0, 2.0])


def test_merge_pools_samples_and_weighs_extra_figures_by_calls() -> None:
    merged = merge(
        [
            Measurement(calls=1, elapsed_ns=10, latencies_ns=[10], extra={"cpu": 1.0}),
            Measurement(calls=3, elapsed_ns=20, latencies_ns=[5, 6, 7], extra={"cpu": 5.0}),
        ]
    )
    assert merged == Measurement(
        calls=4, elapsed_ns=30, latencies_ns=[10, 5, 6, 7], extra={"cpu": 4.0}
    )
