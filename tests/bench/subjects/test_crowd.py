"""A client that keeps many calls queued, in a process of its own."""

import pytest

from pronghorn.bench.children import running
from pronghorn.bench.subjects.calls import open_pool


@pytest.mark.slow
def test_it_calls_until_it_is_ended() -> None:
    with open_pool(2) as pool, pool.client() as client:

        def accepted() -> int:
            count = client.call("pronghorn.stats")["counters"]["accepted"]
            assert isinstance(count, int)
            return count

        module = "pronghorn.bench.subjects.crowd"
        with running(module, pool.endpoint, "nap_100us", "50"):
            assert accepted() >= 50  # it is ready when each has had a reply
            before = accepted()
            while accepted() < before + 500:
                pass
