"""Mirror of broker/recycling.py."""

from math import inf
from random import Random

import pytest

from pronghorn.broker.recycling import JITTER, LOOK_S, Recycling, WorkerLimits


def test_nothing_is_limited_by_default() -> None:
    assert Recycling().limits(Random(1)) == WorkerLimits(inf, inf, inf)
    assert Recycling().look_s == 0.0
    assert WorkerLimits().reached(requests=10**9, memory_bytes=10**12) == ""


def test_memory_is_looked_at_only_where_it_counts() -> None:
    assert Recycling(memory_bytes=1).look_s == LOOK_S
    assert Recycling(requests=1, age_s=1.0).look_s == 0.0


def test_limits_differ_from_worker_to_worker_by_a_tenth_at_most() -> None:
    random = Random(7)
    set_ = Recycling(requests=1000, age_s=60.0, memory_bytes=10**9)
    all_ = [set_.limits(random) for _ in range(200)]
    for limits in all_:
        assert 1000 * (1 - JITTER) - 1 <= limits.requests <= 1000 * (1 + JITTER) + 1
        assert 60 * (1 - JITTER) <= limits.age_s <= 60 * (1 + JITTER)
        assert 10**9 * (1 - JITTER) <= limits.memory_bytes <= 10**9 * (1 + JITTER)
        assert limits.requests == int(limits.requests)
    assert len({limits.requests for limits in all_}) > 50


def test_a_worker_serves_one_request_at_least() -> None:
    random = Random(1)
    assert {Recycling(requests=1).limits(random).requests for _ in range(50)} == {1}


@pytest.mark.parametrize(
    ("requests", "memory_bytes", "why"),
    [
        (9, 99, ""),
        (10, 0, "it was given 10 requests"),
        (0, 100, "it takes 100 bytes of memory"),
    ],
)
def test_a_limit_that_is_reached_is_named(requests: int, memory_bytes: int, why: str) -> None:
    limits = WorkerLimits(requests=10, memory_bytes=100)
    assert limits.reached(requests=requests, memory_bytes=memory_bytes) == why
