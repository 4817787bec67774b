"""Conditions, and what records say of them."""

import pytest
from load_records import MS, imagined

from pronghorn.bench.load.verdict import failures, parse_condition
from pronghorn.broker.wire.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "metric", "symbol", "limit"),
    [
        ("p99>5ms", "p99", ">", 5 * MS),
        ("p99.9 >= 1.5 s", "p99.9", ">=", 1500 * MS),
        ("p97.5<800us", "p97.5", "<", 800_000),
        ("max<=10ns", "max", "<=", 10),
        ("errors>0", "errors", ">", 0),
        ("error_rate>0.5%", "error_rate", ">", 0.005),
        ("achieved<1900/s", "achieved", "<", 1900),
        ("unsent>0", "unsent", ">", 0),
    ],
)
def test_conditions_are_understood(text: str, metric: str, symbol: str, limit: float) -> None:
    condition = parse_condition(text)
    assert (condition.metric, condition.symbol) == (metric, symbol)
    assert condition.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text", ["", "p99", "p99=5ms", "p99>5", "p42>5ms", "errors>0ms", "speed>1", "p99>1.2.3ms"]
)
def test_what_is_no_condition_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=repr(text).replace(".", r"\.")):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "calls"), [("p50<1s", 20), ("p97.5<1s", 400), ("p99.99<1s", 100_000), ("max<1s", 1)]
)
def test_a_percentile_wants_ten_calls_beyond(text: str, calls: int) -> None:
    assert parse_condition(text).calls_least == calls


@pytest.mark.parametrize(
    ("text", "is_limit"),
    [("p99<5ms", True), ("errors<=3", True), ("achieved>5", True), ("p99>5ms", False)],
)
def test_what_a_service_leaves_as_it_gets_more_to_do_is_a_limit(text: str, is_limit: bool) -> None:
    assert parse_condition(text).is_limit == is_limit


def test_what_holds_is_told_with_its_value() -> None:
    record = imagined(median_ms=1, failing=0.1)
    conditions = [parse_condition(text) for text in ("p99>5ms", "p50>5ms", "errors>0")]
    first, second = failures(conditions, record)
    assert first.startswith("p99>5ms holds: p99 is 6.")
    assert second.startswith("errors>0 holds: errors is ")


def test_what_cant_be_judged_is_no_success() -> None:
    (told,) = failures([parse_condition("p99.99>1s")], imagined())
    assert "can't be judged" in told


def test_invalid_run_is_no_success() -> None:
    conditions = [parse_condition("errors>0")]
    assert failures(conditions, imagined()) == []
    assert "saturated" in failures(conditions, imagined(cpu=1.0))[0]
