"""Recorded runs as subjects: each does what it says and is checked."""

from typing import Any

import pytest

from pronghorn.bench.subjects import flow_recorded

pytestmark = pytest.mark.slow  # each starts a pool of its own


@pytest.mark.parametrize("level", ["none", "batched", "sync"])
def test_runs_are_measured_at_each_durability(level: Any) -> None:
    with flow_recorded.recorded_run_of_20(level) as measure:
        assert len(measure(2).latencies_ns) == 2


def test_commits_are_counted() -> None:
    with flow_recorded.recorded_runs_at_once("batched", 4) as measure:
        measured = measure(8)
    assert measured.calls == 8
    assert 0 < measured.extra[flow_recorded.COMMITS_PER_RUN] <= 2
