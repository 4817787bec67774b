"""The search for the highest rate."""

import pytest

from pronghorn.bench.load.knee import PRECISION, TRIALS_MAX, KneeSearch


@pytest.mark.parametrize("first", [10.0, 1000.0, 40_000.0])
@pytest.mark.parametrize("knee", [17.0, 3_333.0, 61_000.0])
def test_finds_the_knee_from_both_sides(first: float, knee: float) -> None:
    search = KneeSearch(first)
    tried = 0
    while (rate := search.next_rate()) is not None:
        search.on_tried(rate, held=rate <= knee)
        tried += 1
    assert search.held is not None
    assert search.failed is not None
    assert search.held <= knee < search.failed
    if tried < TRIALS_MAX:
        assert search.failed / search.held <= 1 + PRECISION


def test_no_rate_is_tried_that_is_too_low_to_tell() -> None:
    search = KneeSearch(1000.0, least=200.0)
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.on_tried(rate, held=False)
    assert tried == [1000.0, 500.0, 250.0]


@pytest.mark.parametrize(("held", "end"), [(True, 1_000_000), (False, 1)])
def test_ends_where_there_is_no_knee(held: bool, end: float) -> None:
    search = KneeSearch(64.0)
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.on_tried(rate, held=held)
    assert len(tried) <= TRIALS_MAX
    assert min(tried) >= 1
    assert max(tried) <= 1_000_000
    assert (search.held is None) != held
