"""Durations counted as HdrHistogram counts them."""

from collections import Counter
from random import Random

import pytest

from pronghorn.bench.load.histogram import VALUE_MAX_NS, Histogram, Recorder, largest_of

# Made by hdrhistogram 0.10.8 (Python): HdrHistogram(1, 2**40, 3), the values below, encode().
GOLDEN = "HISTFAAAADd4nJNpmSzMwMAgyQABzFCaEYyAwP4DRICJiZXpMD/TagEmpv44lpOaN1halzEyPVdhAgDGygks"
VALUES = {0: 1, 1: 1, 5: 1, 1000: 1, 2047: 1, 2048: 1, 123_456: 1, 123_457: 1}
VALUES |= {10**9: 1, 5 * 10**9: 1, 777_777: 300}


def made(values: dict[int, int]) -> Histogram:
    recorder = Recorder()
    for value, times in values.items():
        for _ in range(times):
            recorder.record(value)
    return recorder.histogram()


def test_reference_implementation_encodes_the_same_counts() -> None:
    assert Histogram.decode(GOLDEN).counts == made(VALUES).counts


def test_decoding_restores_what_was_encoded() -> None:
    random = Random(1)
    values = {int(random.paretovariate(0.3)) % VALUE_MAX_NS: 3 for _ in range(500)}
    histogram = made(values)
    decoded = Histogram.decode(histogram.encode())
    assert decoded.counts == histogram.counts
    assert decoded.count == histogram.count


def test_empty_one_survives_encoding() -> None:
    assert Histogram.decode(Histogram().encode()).counts == {}


@pytest.mark.parametrize("text", ["", "nonsense", "SElTVA==", GOLDEN[:-8], "HISTFAAAAAA="])
def test_what_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no HdrHistogram"):
        Histogram.decode(text)


@pytest.mark.parametrize("value", [0, 1, 1023, 1024, 2047, 2048, 4095, 10**6, 10**9, VALUE_MAX_NS])
def test_bucket_is_at_most_a_thousandth_wide(value: int) -> None:
    (index,) = made({value: 1}).counts
    assert value <= largest_of(index) <= value * 1025 / 1024
    assert largest_of(index - 1) < value


def test_merging_is_exact_whoever_has_counted() -> None:
    random = Random(2)
    values = [int(random.expovariate(1e-6)) for _ in range(4000)]
    parts = [Recorder() for _ in range(3)]
    for number, value in enumerate(values):
        parts[number % 3].record(value)
    merged = Histogram()
    for part in parts:
        merged.add(part.histogram())
    assert merged.counts == made(Counter(values)).counts
    assert (merged.count, merged.sum_ns, merged.max_ns) == (4000, sum(values), max(values))


def test_percentiles_are_those_of_the_sorted_values() -> None:
    histogram = made(dict.fromkeys(range(1000, 100_000_001, 1000), 1))
    assert histogram.percentiles([50, 99, 99.99, 100]) == pytest.approx(
        [50_000_000, 99_000_000, 99_990_000, 100_000_000], rel=1e-3
    )
    assert histogram.percentiles([100]) == [100_000_000]


def test_percentiles_of_nothing_are_0() -> None:
    assert Histogram().percentiles([50, 100]) == [0, 0]


def test_longest_and_negative_durations_are_counted_at_the_ends() -> None:
    histogram = made({VALUE_MAX_NS * 4: 1, -5: 2})
    assert histogram.max_ns == VALUE_MAX_NS
    assert histogram.counts[0] == 2


def test_taking_what_was_counted_leaves_nothing() -> None:
    recorder = Recorder()
    assert recorder.take().counts == {}
    for value in (0, 5, 5, VALUE_MAX_NS):
        recorder.record(value)
    taken = recorder.take()
    assert taken.counts == made({0: 1, 5: 2, VALUE_MAX_NS: 1}).counts
    assert (taken.count, taken.sum_ns, taken.max_ns) == (4, 10 + VALUE_MAX_NS, VALUE_MAX_NS)
    empty = recorder.take()
    assert (empty.counts, empty.count, empty.sum_ns, empty.max_ns) == ({}, 0, 0, 0)


def test_window_has_what_was_added_and_not_removed() -> None:
    window = Recorder()
    assert window.percentile(99) == 0
    slow, quick = made({10**9: 50}), made({value: 1 for value in range(1000, 100_001, 1000)})
    window.add(slow)
    window.add(quick)
    assert window.percentile(99) == pytest.approx(10**9, rel=1e-3)
    window.remove(slow)
    assert window.percentile(99) == pytest.approx(*quick.percentiles([99]), rel=2e-3)
    assert window.percentile(50) == pytest.approx(*quick.percentiles([50]), rel=2e-3)
