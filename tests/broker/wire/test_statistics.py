"""Mirror of broker/wire/statistics.py: a snapshot is a value that JSON and msgpack can carry."""

import msgspec
import pytest

from pronghorn.broker.wire.histogram import Histogram
from pronghorn.broker.wire.statistics import (
    Durations,
    NodeStatistics,
    Recent,
    SlowPeer,
    Statistics,
    WorkerStatistics,
)

SNAPSHOT = Statistics(
    epoch="e1",
    pid=7,
    counters={"accepted": 3},
    refused={"not_found": 1},
    turns=Durations(1, 5, 5, 5, ((5, 1),)),
    slow_peers=(SlowPeer(9, 10, 1),),
    nodes=(NodeStatistics(name="m.add", errors={"NODE_ERROR": 2, "X": 1}, recent=Recent(1.0)),),
    workers=(WorkerStatistics(id=1, pid=1001, state="ready", memory_bytes=5),),
)


def test_a_snapshot_does_not_change() -> None:
    for part in (SNAPSHOT, *SNAPSHOT.nodes, *SNAPSHOT.workers, *SNAPSHOT.slow_peers):
        assert part.__struct_config__.frozen


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack])
def test_it_travels(codec: object) -> None:
    encoded = codec.encode(SNAPSHOT)  # type: ignore[attr-defined]
    assert codec.decode(encoded, type=Statistics) == SNAPSHOT  # type: ignore[attr-defined]


def test_a_newer_broker_may_tell_more() -> None:
    told = msgspec.to_builtins(SNAPSHOT) | {"news": 1}
    assert msgspec.convert(told, Statistics) == SNAPSHOT


def test_durations_of_a_histogram() -> None:
    histogram = Histogram()
    for value in (3, 3, 3, 9):
        histogram.record(value)
    assert Durations.of(histogram) == Durations(4, 18, 3, 9, ((3, 3), (9, 1)))
    assert Durations.of(Histogram()) == Durations()


def test_errors_are_summed() -> None:
    assert SNAPSHOT.nodes[0].failed == 3
