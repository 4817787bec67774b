"""Parts are timed one by one, counted, and read slowly."""

import pytest

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.streams import GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first_part", "next_part"])
def test_each_part_is_timed(name: str) -> None:
    with started(Subject(name=name, factory=f"subjects.streams:{name}")) as running:
        measured = running.measure(20)
    assert len(measured.latencies_ns) == measured.calls == 20
    assert min(measured.latencies_ns) > 0


@pytest.mark.slow
def test_all_parts_are_counted() -> None:
    with started(Subject(name="rate", factory="subjects.streams:rate")) as running:
        assert running.measure(1000).calls == 1000


@pytest.mark.slow
def test_memory_is_looked_at() -> None:
    with started(Subject(name="slow", factory="subjects.streams:slow_reader")) as running:
        assert GROWTH in running.measure(50).extra
