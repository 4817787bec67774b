"""Quick calls among slow ones, with a slow call short enough for a test."""

import pytest

from pronghorn.bench.subject import Subject, started

pytestmark = pytest.mark.slow


def test_planned_calls() -> None:
    with started(Subject(name="paced", factory="subjects.mixed:paced")) as running:
        measured = running.measure(100)  # too few for a slow one
    assert len(measured.latencies_ns) == measured.calls == 100
    assert measured.extra["slow_calls"] == 0


def test_callers_without_a_pause_go_on_until_the_slow_call_has_ended() -> None:
    with started(Subject(name="full", factory="subjects.mixed:kept_full")) as running:
        measured = running.measure(1000)
    assert measured.calls > 1000
    assert measured.extra["slow_calls"] == 1
    assert measured.elapsed_ns > 1_000_000_000
