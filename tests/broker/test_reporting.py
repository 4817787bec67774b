"""Mirror of broker/reporting.py: what the shell adds to what the core has counted."""

import os
import socket
from time import monotonic

import msgspec
import pytest
from core_driver import JSON, PEER, Driver

from pronghorn.broker.events import Report
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.poller import Poller
from pronghorn.broker.reporting import Reporter, resident_bytes
from pronghorn.broker.streams import SLOW_PEERS_MAX, Stream, Streams
from pronghorn.broker.wire.limits import MIB, Limits
from pronghorn.broker.wire.messages import Result
from pronghorn.broker.wire.statistics import SlowPeer, Statistics

LIMITS = Limits()


@pytest.fixture
def streams():
    poller = Poller()
    made = Streams(
        [],
        limits=LIMITS,
        unread_bytes=1024 * MIB,
        ingress=Ingress(LIMITS),
        poller=poller,
        accepted=lambda stream: None,
        read=lambda stream: None,
    )
    yield made
    made.close_all()
    poller.close()


def add_client(streams: Streams, number: int, unread_bytes: int) -> socket.socket:
    """Make a client that reads nothing; what its socket takes in is no more than 1 MiB."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = b"%d" % number
    stream = streams.by_peer[peer] = Stream(ours, peer, Ingress(LIMITS), LIMITS)
    stream.put([bytes(unread_bytes)])
    assert stream.flush() == (not unread_bytes)
    return theirs


def test_memory_and_turns_are_told(driver: Driver, streams: Streams) -> None:
    reporter = Reporter(driver.core, streams)
    begun = monotonic()
    reporter.end_turn(begun - 0.010)
    statistics = reporter.statistics(begun + 5)
    assert statistics.turns.count == 1
    assert statistics.turns.p50_ns > 9_000_000
    assert statistics.at == begun + 5
    assert statistics.started_at <= begun
    assert statistics.memory_bytes is None or statistics.pid == 7
    assert (statistics.unread_bytes, statistics.slow_peers) == (0, ())


def test_who_does_not_read_is_told(driver: Driver, streams: Streams) -> None:
    clients = [add_client(streams, number, number * MIB) for number in range(SLOW_PEERS_MAX + 3)]
    statistics = Reporter(driver.core, streams).statistics(1.0)
    for client in clients:
        client.close()
    assert len(statistics.slow_peers) == SLOW_PEERS_MAX
    assert [peer.pid for peer in statistics.slow_peers] == [os.getpid()] * SLOW_PEERS_MAX
    sizes = [peer.unread_bytes for peer in statistics.slow_peers]
    assert sizes == sorted(sizes, reverse=True)
    assert statistics.unread_bytes > sum(sizes) > 0
    assert all(isinstance(peer, SlowPeer) for peer in statistics.slow_peers)


def test_the_reply_is_in_the_language_of_the_call(driver: Driver, streams: Streams) -> None:
    reporter = Reporter(driver.core, streams)
    for report, codec in (
        (Report(PEER, 5), msgspec.msgpack),
        (Report(PEER, 5, JSON), msgspec.json),
    ):
        send = reporter.answer(report)
        assert (send.peer, send.origin) == (PEER, report.origin)
        assert isinstance(send.message, Result)
        assert send.message.id == 5
        assert codec.decode(send.message.value, type=Statistics).epoch == "e1"


def test_the_memory_of_a_process() -> None:
    assert (resident_bytes(os.getpid()) or 0) > MIB
    assert resident_bytes(0) is None
