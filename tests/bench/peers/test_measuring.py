"""Mirror of bench/peers/measuring.py."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pronghorn.bench.peers import measuring
from pronghorn.bench.peers.measuring import IN_FLIGHT, Peer, measured, rate_at


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module that every name of a peer stands for."""
    module = SimpleNamespace()
    monkeypatch.setattr(measuring.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(measuring, "_BURSTS_NS", 1)
    return module


def giving(peer: Peer) -> object:
    @contextmanager
    def made() -> Iterator[Peer]:
        yield peer

    return made


def test_lone_calls_and_bursts_are_measured(named: SimpleNamespace) -> None:
    named.peer = giving(Peer(lambda: 3, lambda count: list(range(1, count + 1))))
    with measured("it") as measure:
        found = measure(20)
    assert len(found.latencies_ns) == 20
    assert set(found.extra) == {rate_at(size) for size in IN_FLIGHT}


def test_async_ones_run_on_their_loop(named: SimpleNamespace) -> None:
    loop = asyncio.new_event_loop()

    async def once() -> int:
        assert asyncio.get_running_loop() is loop
        return 3

    async def burst(count: int) -> list[int]:
        assert asyncio.get_running_loop() is loop
        return list(range(1, count + 1))

    named.other = giving(Peer(once, burst, loop))
    with measured("it:other") as measure:
        assert measure(5).calls == 5
    loop.close()


def test_wrong_results_are_refused(named: SimpleNamespace) -> None:
    named.peer = giving(Peer(lambda: 4))
    with measured("it") as measure, pytest.raises(AssertionError, match="expected 3"):
        measure(1)
    named.peer = giving(Peer(lambda: 3, lambda count: [0] * count))
    with measured("it") as measure, pytest.raises(AssertionError, match="expected"):
        measure(1)


def test_larger_bursts_are_left_out_where_they_would_take_minutes(
    named: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_BURST_MAX_NS", 0)
    named.peer = giving(Peer(lambda: 3, lambda count: list(range(1, count + 1))))
    with measured("it") as measure:
        assert set(measure(1).extra) == {rate_at(1)}
    with measured("it", at_once=False) as measure:
        assert measure(1).extra == {}
