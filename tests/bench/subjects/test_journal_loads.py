"""Loads on a real writer, with next to no calls."""

import pytest

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.journal_loads import (
    BYTES_PER_RUN,
    COMMITS_OF_MOST,
    COMMITS_PER_RUN,
    in_flight,
    offered,
    one_at_a_time,
    starts,
    together,
)

pytestmark = pytest.mark.slow


def test_single_records_and_offered_ones_have_a_latency_each() -> None:
    for load in (one_at_a_time, offered):
        with load() as measure:
            measured = measure(20)
            assert measure(5).calls == 5
        assert measured.calls == len(measured.latencies_ns) == 20
        assert all(latency > 0 for latency in measured.latencies_ns)


def test_many_in_flight_share_commits() -> None:
    with in_flight() as measure:
        measured = measure(2000)
    assert measured.calls == 2000
    assert 0 < measured.extra[COMMITS_PER_RUN] < 0.2
    assert 100 < measured.extra[BYTES_PER_RUN] < 1000


def test_what_ends_together_shares_a_commit_and_waits_for_nobody() -> None:
    with together() as measure:
        measured = measure(3)
    assert len(measured.latencies_ns) == 3
    assert 1 <= measured.extra[COMMITS_OF_MOST] <= 4


def test_a_start_finds_the_open_runs() -> None:
    with starts() as measure:
        assert measure(100).calls == 1


def test_it_runs_as_a_subject() -> None:
    with started(Subject(name="j", factory="subjects.journal_loads:one_at_a_time")) as running:
        assert running.measure(3).calls == 3
