"""Mirror of client/stopwatch.py."""

from itertools import count
from typing import Any

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.messages import Times
from pronghorn.client.stopwatch import Stopwatch, with_options


def test_what_is_noted_and_what_is_told_come_together() -> None:
    stopwatch = Stopwatch(count(10, 10).__next__)
    stopwatch.sent()
    stopwatch.told(Times(1, 21, 22, 23, 24, 25))
    stopwatch.answered()
    waterfall = stopwatch.waterfall()
    assert waterfall is not None
    assert (waterfall.asked, waterfall.sent, waterfall.received) == (10, 20, 21)
    assert (waterfall.given, waterfall.begun, waterfall.ended) == (22, 23, 24)
    assert (waterfall.replied, waterfall.answered) == (25, 30)


def test_without_the_brokers_word_there_is_none() -> None:
    stopwatch = Stopwatch(count().__next__)
    stopwatch.answered()
    assert stopwatch.waterfall() is None


@pytest.mark.parametrize(
    "times", [Times(1, 1, 22, 23, 24, 25), Times(1, 21, None, None, None, 10**12)]
)
def test_another_hosts_clock_is_of_no_use(times: Times) -> None:
    stopwatch = Stopwatch(count(10, 10).__next__)
    stopwatch.sent()
    stopwatch.told(times)
    stopwatch.answered()
    assert stopwatch.waterfall() is None


def test_a_run_in_this_process_is_all_there_is() -> None:
    stopwatch = Stopwatch(count(10, 10).__next__)
    stopwatch.ran(5)
    waterfall = stopwatch.waterfall()
    assert waterfall is not None
    assert {stage.name: stage.ns for stage in waterfall.stages()}["run"] == 5
    assert sum(stage.ns for stage in waterfall.stages()) == waterfall.total_ns


@pytest.mark.parametrize("key", ["", "x" * 256, "\u00e9" * 128, 17])
def test_a_key_is_a_short_text(key: Any) -> None:
    extras = with_options(None, key="\u00e9" * 127)
    assert extras is not None
    assert extras.key == "\u00e9" * 127
    assert with_options(extras, key=None) is None
    with pytest.raises(InvalidArgumentError, match="1 to 255 bytes"):
        with_options(None, key=key)


def test_a_durability_is_one_of_three() -> None:
    extras = with_options(None, durability="sync")
    assert extras is not None
    assert extras.durability == "sync"
    assert with_options(extras, durability=None) is None
    with pytest.raises(InvalidArgumentError, match="one of none, batched, sync"):
        with_options(None, durability="fsync")  # type: ignore[arg-type]
