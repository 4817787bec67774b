"""Mirror of broker/wire/histogram.py: held against exact percentiles of the same values."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronghorn.broker.wire.histogram import BUCKETS, RELATIVE_ERROR, Histogram

LARGEST = 2**64 - 1
values = st.one_of(st.integers(0, 64), st.integers(0, 2**40), st.integers(0, LARGEST))


def histogram_of(*recorded: int) -> Histogram:
    histogram = Histogram()
    for value in recorded:
        histogram.record(value)
    return histogram


def exact(recorded: list[int], percent: float) -> int:
    """The least value that so many percent of all don't exceed."""
    rank = max(1, math.ceil(round(len(recorded) * percent / 100, 9)))
    return sorted(recorded)[rank - 1]


def test_there_is_nothing_at_first() -> None:
    empty = Histogram()
    assert (empty.count, empty.sum_ns, empty.buckets()) == (0, 0, [])
    assert empty.percentiles(50, 99) == [0, 0]


@given(st.lists(values, min_size=1), st.sampled_from([0.1, 1, 25, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_nearly_exact(recorded: list[int], percent: float) -> None:
    (found,) = histogram_of(*recorded).percentiles(percent)
    true = exact(recorded, percent)
    assert abs(found - true) <= true * RELATIVE_ERROR


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_of_many_values(seed: int) -> None:
    dice = random.Random(seed)
    recorded = [int(dice.lognormvariate(11, 2)) for _ in range(2_000)]
    found = histogram_of(*recorded).percentiles(50, 90, 99, 99.9)
    for value, percent in zip(found, (50, 90, 99, 99.9), strict=True):
        assert value == pytest.approx(exact(recorded, percent), rel=RELATIVE_ERROR)


@given(values)
def test_a_value_lies_in_the_one_bucket_that_counts_it(value: int) -> None:
    ((largest, count),) = histogram_of(value).buckets()
    assert count == 1
    assert value <= largest
    assert histogram_of(largest).buckets() == [(largest, 1)]
    if largest < LARGEST:
        assert histogram_of(largest + 1).buckets()[0][0] > largest


def test_the_largest_value_has_the_last_bucket() -> None:
    last = histogram_of(LARGEST)
    assert last.counts[BUCKETS - 1] == 1
    assert last.buckets() == [(LARGEST, 1)]


def test_small_values_are_exact() -> None:
    assert histogram_of(*range(16)).buckets() == [(value, 1) for value in range(16)]


def test_a_value_is_counted_many_times_at_once() -> None:
    histogram = Histogram()
    histogram.record(7, times=3)
    histogram.record(9, times=0)
    assert (histogram.count, histogram.sum_ns) == (3, 21)


@given(st.lists(values), st.lists(values))
def test_merged_is_as_if_one_had_counted_all(first: list[int], second: list[int]) -> None:
    merged = histogram_of(*first)
    merged.add(histogram_of(*second))
    both = histogram_of(*first, *second)
    assert (merged.counts, merged.sum_ns) == (both.counts, both.sum_ns)


@given(st.lists(values), st.lists(values))
def test_what_came_since_a_copy(before: list[int], after: list[int]) -> None:
    histogram = histogram_of(*before)
    earlier = histogram.copy()
    for value in after:
        histogram.record(value)
    since, only = histogram.since(earlier), histogram_of(*after)
    assert (since.counts, since.sum_ns) == (only.counts, only.sum_ns)
    assert earlier.counts == histogram_of(*before).counts
