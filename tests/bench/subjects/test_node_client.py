"""Mirror of bench/subjects/node_client.py."""

from collections.abc import Iterator

import foreign_clients
import pytest

from pronghorn.bench.subjects import node_client
from pronghorn.bench.timing import Measure


@pytest.fixture(params=[node_client.round_trip, node_client.proxied], ids=["pool", "proxy"])
def measure(request: pytest.FixtureRequest) -> Iterator[Measure]:
    if not node_client.is_available():
        foreign_clients.skip("there is no Node.js, or its packages are not installed")
    with request.param() as measure:
        yield measure


@pytest.mark.slow
def test_each_call_is_timed(measure: Measure) -> None:
    measured = measure(5)
    assert measured.calls == len(measured.latencies_ns) == 5
    assert 0 < sum(measured.latencies_ns) <= measured.elapsed_ns
    assert measure(2).calls == 2
