"""Both brokers of the links benchmark, with real sockets and workers."""

import pytest

from pronghorn.bench.micro import link_clients

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("link", ["zeromq", "socketpair"])
def test_one_call_at_a_time(link: str) -> None:
    with link_clients.round_trip(link) as measure:
        assert len(measure(50).latencies_ns) == 50


@pytest.mark.parametrize("link", ["zeromq", "socketpair"])
def test_many_calls_outstanding(link: str) -> None:
    with link_clients.outstanding(link, count=200) as measure:
        measured = measure(1500)
    assert measured.calls == 1500
    assert measured.extra["broker_cpu_us_per_call"] > 0
    assert measured.extra["worker_cpu_us_per_call"] > 0
