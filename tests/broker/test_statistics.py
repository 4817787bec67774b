"""Mirror of broker/statistics.py: a snapshot is a value that JSON and msgpack can carry."""

from dataclasses import asdict

import msgspec
import pytest

from pronghorn.broker.statistics import (
    BrokerStatistics,
    Counters,
    NodeStatistics,
    WorkerStatistics,
)

SNAPSHOT = BrokerStatistics(
    epoch="e1",
    pid=7,
    sessions=1,
    queued=2,
    queued_bytes=30,
    counters=asdict(Counters()),
    nodes=[NodeStatistics("m.add", 5, 1, None)],
    workers=[WorkerStatistics(1, 1001, "ready", 3)],
)


def test_counting_begins_at_nothing() -> None:
    counters = Counters()
    assert set(asdict(counters).values()) == {0}
    counters.completed += 1
    assert counters.completed == 1


def test_a_snapshot_does_not_change() -> None:
    for part in (SNAPSHOT, *SNAPSHOT.nodes, *SNAPSHOT.workers):
        assert part.__struct_config__.frozen


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack])
def test_it_travels(codec: object) -> None:
    encoded = codec.encode(SNAPSHOT)  # type: ignore[attr-defined]
    assert codec.decode(encoded, type=BrokerStatistics) == SNAPSHOT  # type: ignore[attr-defined]


def test_its_names_on_the_wire() -> None:
    plain = msgspec.to_builtins(SNAPSHOT)
    assert list(plain) == [
        "epoch",
        "pid",
        "sessions",
        "queued",
        "queued_bytes",
        "counters",
        "nodes",
        "workers",
    ]
    assert plain["nodes"] == [{"name": "m.add", "calls": 5, "failures": 1, "estimate_ns": None}]
    assert plain["workers"] == [{"id": 1, "pid": 1001, "state": "ready", "held": 3}]
