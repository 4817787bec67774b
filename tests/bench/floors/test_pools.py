"""The standard library's pools, each in a process of its own for it forks."""

import pytest

from pronghorn.bench.subject import Subject, started


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory",
    ["executor_round_trip", "pool_round_trip", "executor_burst", "pool_burst", "pool_starmap"],
)
def test_they_measure(factory: str) -> None:
    with started(Subject(name=factory, factory=f"floors.pools:{factory}")) as running:
        measured = running.measure(50)
    assert measured.calls == 50
    assert measured.elapsed_ns > 0


@pytest.mark.slow
def test_counting_in_two_processes() -> None:
    options = {"loops": 1000, "workers": 2}
    subject = Subject(name="count", factory="floors.pools:pool_count", options=options)
    with started(subject) as running:
        assert running.measure(20).calls == 20
