"""Mirror of client/stopwatch.py."""

from itertools import count

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


def test_a_durability_is_one_of_three() -> None:
    extras = with_options(None, durability="sync")
    assert extras is not None
    assert extras.durability == "sync"
    assert with_options(extras, durability=None) is None
    with pytest.raises(InvalidArgumentError, match="one of none, batched, sync"):
        with_options(None, durability="fsync")  # type: ignore[arg-type]
