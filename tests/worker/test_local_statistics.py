"""Mirror of worker/local_statistics.py; tests/client/test_sync.py has what all pools tell."""

from msgspec import Raw

from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import ChunkDone, Done, Failed
from pronghorn.broker.wire.messages import ItemFailure
from pronghorn.worker.local_statistics import LocalStatistics

VALUE = Raw(b"\x03")


def test_each_end_is_counted_with_its_node() -> None:
    statistics = LocalStatistics(["m.add", "m.other"])
    statistics.count("m.add", Done(1, VALUE, 9))
    statistics.count("m.add", Failed(2, "NODE_ERROR", "boom", ErrorDetails()))
    failure = ItemFailure(1, "INVALID_ARGUMENT", "no", ErrorDetails())
    statistics.count("m.add", ChunkDone(3, VALUE, 30, 3, (failure,)))
    statistics.count("m.add", ChunkDone(4, VALUE, 0, 0))
    told = statistics.snapshot()
    add, other = told.nodes
    assert (add.accepted, add.calls) == (4, 3)
    assert add.errors == {"NODE_ERROR": 1, "INVALID_ARGUMENT": 1}
    assert add.run.buckets == ((9, 1), (10, 2))
    assert (add.recent.calls, add.recent.errors) == (3, 2)
    assert (other.accepted, other.calls) == (0, 0)
    assert told.counters == {"accepted": 4, "failed": 2}
    assert told.workers == ()
