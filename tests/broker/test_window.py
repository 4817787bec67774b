"""Mirror of broker/window.py."""

import pytest

from pronghorn.broker.window import (
    BUDGET_NS,
    CONCURRENT_PER_WORKER,
    OVERHEAD_NS,
    QUICK_NS,
    STALL_S,
    WINDOW_BYTES,
    estimate,
)
from pronghorn.broker.wire.slots import SLOTS_PER_WORKER


def test_the_first_sample_is_the_estimate() -> None:
    assert estimate(None, 1234) == 1234.0


@pytest.mark.parametrize(
    ("previous", "sample", "expected"),
    [
        (1000.0, 1000, 1000.0),
        (1000.0, 200, 800.0),  # a quarter of the way down
        (1000.0, 1800, 1100.0),  # an eighth of the way up
        (1000.0, 10**9, 1000.0 + (8 * (1000 + OVERHEAD_NS) - 1000) / 8),  # no outlier moves more
        (0.0, 0, 0.0),
    ],
)
def test_an_estimate_moves_towards_the_sample(
    previous: float, sample: int, expected: float
) -> None:
    assert estimate(previous, sample) == expected


def test_a_node_that_is_slow_once_stays_quick() -> None:
    assert estimate(20_000.0, 1_000_000_000) < QUICK_NS


def test_a_node_that_has_become_slow_is_found_out_soon() -> None:
    value, samples = 20_000.0, 0
    while value < QUICK_NS:
        value, samples = estimate(value, 1_000_000_000), samples + 1
    assert samples <= 5


def test_a_cold_first_call_is_soon_forgotten() -> None:
    value, samples = estimate(None, 2_000_000), 1
    while value >= QUICK_NS:
        value, samples = estimate(value, 20_000), samples + 1
    assert samples <= 10


def test_the_limits_fit_each_other() -> None:
    assert STALL_S * 1e9 > BUDGET_NS > QUICK_NS
    assert 0 < CONCURRENT_PER_WORKER < SLOTS_PER_WORKER
    assert WINDOW_BYTES < 208 * 1024
