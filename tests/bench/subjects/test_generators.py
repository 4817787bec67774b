"""Mirror of bench/subjects/generators.py: each for a second or two."""

import pytest

from pronghorn.bench.figures import Measurement
from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.generators import (
    GROWTH,
    LAG_P99,
    RATES,
    SAYS_INVALID,
    STALL_SEEN_MS,
    VALID,
    off,
)

pytestmark = pytest.mark.slow


def measured(factory: str, seconds: int) -> Measurement:
    subject = Subject(name="it", factory=f"subjects.generators:{factory}")
    with started(subject) as running:
        return running.measure(seconds)


def test_a_pause_is_seen() -> None:
    # How exactly is measured on a quiet machine; a harness that waits for answers is off by 99 %.
    extra = measured("stalled", 2).extra
    assert all(extra[off(percent)] < 50 for percent in STALL_SEEN_MS)


def test_lag_is_told() -> None:
    found = measured("on_time", 1)
    assert found.extra[LAG_P99] > 0
    assert found.calls == 2_000


def test_the_limit_is_one_of_the_rates() -> None:
    extra = measured("at_its_limit", 1).extra
    assert extra[VALID] in (0, *RATES)
    assert extra[SAYS_INVALID] == (extra[VALID] < RATES[-1])


def test_growth_is_told() -> None:
    assert GROWTH in measured("for_long", 2).extra
