"""Mirror of bench/subjects/keys.py."""

import pytest

from pronghorn.bench.subjects.keys import KIB_EACH, sync_round_trip

pytestmark = pytest.mark.slow


def test_calls_with_a_key() -> None:
    with sync_round_trip(workers=1) as measure:
        measured = measure(20)
        assert (measured.calls, measured.extra) == (20, {})


def test_calls_beside_idle_connections() -> None:
    with sync_round_trip(workers=1, idle=60) as measure:
        measured = measure(20)
        assert len(measured.latencies_ns) == 20
        assert 0 < measured.extra[KIB_EACH] < 1000
