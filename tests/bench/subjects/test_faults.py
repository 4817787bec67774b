"""Faults that are timed: a few of each, over real pools."""

import pytest

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.faults import (
    DEADLINE_S,
    LOST,
    QUEUED,
    SLOW_PERCENT,
    WHOLE_P50,
    WHOLE_P99,
)

pytestmark = pytest.mark.slow

BOUND_S = 5.0  # shows a hang, is no budget


@pytest.mark.parametrize(
    ("factory", "options", "extra"),
    [
        ("worker_killed", {}, {WHOLE_P50, WHOLE_P99}),
        ("finished_then_killed", {}, {LOST}),
        ("planned_calls", {}, {SLOW_PERCENT}),
        ("planned_calls", {"beside_blocked": True}, {SLOW_PERCENT}),
        ("calls_in_crowd", {}, set()),
        ("calls_in_crowd", {"crowd_calls": "nothing"}, {QUEUED}),
        ("deadline_of_a_spin", {}, set()),
        ("broker_killed", {}, set()),
    ],
)
def test_each_fault_is_survived(factory: str, options: dict[str, object], extra: set[str]) -> None:
    subject = Subject(name="fault", factory=f"subjects.faults:{factory}", options=options)
    with started(subject) as running:
        measured = running.measure(3)
    assert measured.calls == len(measured.latencies_ns) == 3
    assert max(measured.latencies_ns) < BOUND_S * 1e9
    assert measured.extra.keys() == extra
    assert not measured.extra.get(LOST)
    if factory == "deadline_of_a_spin":
        assert min(measured.latencies_ns) >= DEADLINE_S * 1e9
