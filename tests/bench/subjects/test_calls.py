"""Pronghorn as a subject: every way of calling measures what it says, over real pools."""

import os
from typing import Any

import pytest

from pronghorn.bench.floors.requests import PAYLOAD_64_KIB
from pronghorn.bench.processes import descendants
from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.calls import parameters

pytestmark = pytest.mark.slow

LARGE = {"payload_bytes": PAYLOAD_64_KIB}
SPINNING = {"spin_ns": 200_000}


@pytest.mark.parametrize("factory", ["sync_round_trip", "async_round_trip"])
@pytest.mark.parametrize("options", [{}, LARGE, SPINNING], ids=["add", "64 KiB", "spinning"])
def test_round_trips(factory: str, options: dict[str, Any]) -> None:
    subject = Subject(name="calls", factory=f"subjects.calls:{factory}", options=options)
    with started(subject) as running:
        measured = running.measure(20)
    assert len(measured.latencies_ns) == measured.calls == 20
    if "spin_ns" in options:
        assert min(measured.latencies_ns) > options["spin_ns"]


def test_a_burst_knows_what_it_cost() -> None:
    with started(Subject(name="burst", factory="subjects.calls:async_burst")) as running:
        measured = running.measure(500)
    assert measured.calls == 500
    assert measured.extra["broker CPU per call, us"] > 0
    assert measured.extra["worker 2 memory uss, MiB"] > 0


def test_map_over_dicts() -> None:
    with started(Subject(name="map", factory="subjects.calls:map_dicts")) as running:
        assert running.measure(2_000).calls == 2_000


def test_calls_kept_outstanding() -> None:
    options = {"node": "nap_2ms", "arguments": {}, "expected": None, "count": 4, "workers": 2}
    subject = Subject(name="naps", factory="subjects.calls:kept_outstanding", options=options)
    with started(subject) as running:
        measured = running.measure(40)
    assert measured.calls == 40
    assert measured.elapsed_ns >= 40 / 2 * 2_000_000


def test_a_pinned_subject_pins_its_pool() -> None:
    cpu = min(os.sched_getaffinity(0))
    subject = Subject(name="pinned", factory="subjects.calls:sync_round_trip", cpus=(cpu,))
    with started(subject) as running:
        running.measure(5)
        tree = descendants(running._process.pid)
        assert len(tree) >= 4  # supervisor, broker, template and workers
        assert {frozenset(os.sched_getaffinity(pid)) for pid in tree} == {frozenset({cpu})}


def test_the_call_fits_what_is_asked() -> None:
    assert parameters(0, 0) == ("add", {"a": 1, "b": 2}, 3)
    assert parameters(2, 0) == ("echo", {"value": b"\0\0"}, b"\0\0")
    assert parameters(0, 9) == ("add_after", {"a": 1, "b": 2, "spin_ns": 9}, 3)
