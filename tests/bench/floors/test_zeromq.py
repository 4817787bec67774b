"""The ZeroMQ floors answer, and answer right."""

import pytest

from pronghorn.bench.floors import zeromq
from pronghorn.bench.floors.requests import PAYLOAD_64_KIB


@pytest.mark.parametrize("payload_bytes", [0, PAYLOAD_64_KIB])
def test_direct(payload_bytes: int) -> None:
    with zeromq.direct(payload_bytes) as measure:
        assert measure(20).calls == 20


@pytest.mark.slow
@pytest.mark.parametrize("payload_bytes", [0, PAYLOAD_64_KIB])
def test_through_the_proxy(payload_bytes: int) -> None:
    with zeromq.proxied(payload_bytes) as measure:
        assert len(measure(20).latencies_ns) == 20


@pytest.mark.slow
def test_through_the_proxy_with_a_key() -> None:
    with zeromq.proxied_by_key() as measure:
        assert len(measure(20).latencies_ns) == 20
