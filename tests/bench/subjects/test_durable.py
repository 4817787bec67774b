"""Recorded calls on a real pool, few of them."""

import pytest

from pronghorn.bench.subjects.durable import beside, keyed, many_recorded, recorded, started_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("level", ["none", "batched", "sync"])
def test_calls_at_each_durability_have_their_results(level: str) -> None:
    with recorded(level) as measure:
        assert len(measure(5).latencies_ns) == 5
    with many_recorded(level, 10) as measure:
        assert measure(40).calls == 40


def test_runs_with_a_key_and_started_ones_have_their_results() -> None:
    for runs in (keyed, started_runs):
        with runs() as measure:
            assert len(measure(5).latencies_ns) == 5
            assert measure(2).calls == 2


def test_a_crowd_is_there_meanwhile() -> None:
    with beside("batched") as measure:
        assert len(measure(5).latencies_ns) == 5
