"""The loops that time calls: as many samples as calls, and wrong results are refused."""

import pytest

from pronghorn.bench.timing import check, time_each, time_each_async, time_tight


def test_each_call_has_a_sample_and_they_add_up() -> None:
    calls: list[int] = []
    measured = time_each(lambda: calls.append(1), None, 50)
    assert len(calls) == measured.calls == len(measured.latencies_ns) == 50
    assert sum(measured.latencies_ns) == measured.elapsed_ns


async def test_each_await_has_a_sample() -> None:
    async def three() -> int:
        return 3

    measured = await time_each_async(three, 3, 20)
    assert len(measured.latencies_ns) == measured.calls == 20


def test_bursts_share_out_their_time() -> None:
    measured = time_tight(lambda: 3, 3, 1000, burst=100)
    assert measured.calls == 1000
    assert len(measured.latencies_ns) == 10
    assert sum(measured.latencies_ns) * 100 <= measured.elapsed_ns


def test_a_wrong_result_is_no_benchmark() -> None:
    with pytest.raises(AssertionError, match="expected 3, got 4"):
        time_each(lambda: 4, 3, 2)
    with pytest.raises(AssertionError):
        check(None, 3)
