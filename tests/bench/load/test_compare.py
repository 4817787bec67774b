"""Two runs against each other."""

import msgspec
import pytest
from load_records import imagined

from pronghorn.bench.load.compare import compare, unlikeness
from pronghorn.broker.wire.errors import InvalidArgumentError


@pytest.mark.slow
def test_same_distribution_is_no_difference() -> None:
    found = {each.metric: each.verdict for each in compare(imagined(seed=1), imagined(seed=2))}
    assert found["p50"] == found["p99"] == found["achieved"] == "no difference"


@pytest.mark.slow
def test_slower_one_is_worse_and_the_interval_holds_the_difference() -> None:
    found = {each.metric: each for each in compare(imagined(), imagined(median_ms=1.3, seed=2))}
    assert found["p50"].verdict == found["p99"].verdict == "worse"
    assert found["p50"].low < 300_000 < found["p50"].high
    back = {each.metric: each for each in compare(imagined(median_ms=1.3, seed=2), imagined())}
    assert back["p50"].verdict == "better"


def test_percentiles_that_one_lacks_are_not_compared() -> None:
    metrics = [each.metric for each in compare(imagined(), imagined())]
    assert metrics == ["p50", "p90", "p95", "p97.5", "p99", "achieved"]


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (imagined(rate=900), "rate: 1000"),
        (imagined(duration_s=3), "duration"),
        (imagined(cpu=1.0), "B is invalid"),
        (msgspec.structs.replace(imagined(), target="req tcp://x"), "protocol"),
        (msgspec.structs.replace(imagined(), kinds=()), "calls"),
    ],
)
def test_unlike_runs_are_refused(b: object, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        compare(imagined(), b)  # type: ignore[arg-type]


def test_place_and_seed_may_differ() -> None:
    b = msgspec.structs.replace(imagined(), target="pronghorn tcp://127.0.0.1:1")
    assert unlikeness(imagined(), b) == []
