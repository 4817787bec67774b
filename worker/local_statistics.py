"""What an in-process pool counts of its nodes; nothing waits in a queue and there are no workers.

Mirror: tests/worker/test_local_statistics.py.
"""

import os
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Final

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.histogram import Histogram
from pronghorn.broker.wire.link import ChunkDone, Done, Failed
from pronghorn.broker.wire.messages import Result
from pronghorn.broker.wire.statistics import Durations, NodeStatistics, Recent, Statistics

EPOCH: Final = "local"


class _Counts:
    """Of one node."""

    __slots__ = ("accepted", "errors", "run")

    def __init__(self) -> None:
        self.accepted = 0
        self.errors: dict[str, int] = {}
        self.run = Histogram()

    def failed(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1


class LocalStatistics:
    """Counts the ends of requests; any number of threads may use it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._nodes = {name: _Counts() for name in names}
        self._started_at = monotonic()

    def count(self, node: str, word: Done | ChunkDone | Failed) -> None:
        """Count the last word on a request."""
        counts = self._nodes[node]
        with self._lock:
            counts.accepted += 1
            if isinstance(word, Done):
                counts.run.record(word.run_ns)
            elif isinstance(word, Failed):
                counts.failed(word.code)
            else:
                failures = word.failures or ()
                mean_ns = word.run_ns // max(1, word.item_count)
                counts.run.record(mean_ns, word.item_count - len(failures))
                for failure in failures:
                    counts.failed(failure.code)

    def reply(self) -> Result:
        """Answer a call of ``pronghorn.stats``."""
        return Result(0, Raw(msgspec.msgpack.encode(self.snapshot())))

    def snapshot(self) -> Statistics:
        """Tell what was counted since the pool was made."""
        with self._lock:
            nodes = tuple(self._told(name, counts) for name, counts in self._nodes.items())
        failed = sum(node.failed for node in nodes)
        return Statistics(
            epoch=EPOCH,
            pid=os.getpid(),
            at=monotonic(),
            started_at=self._started_at,
            counters={"accepted": sum(node.accepted for node in nodes), "failed": failed},
            nodes=nodes,
        )

    def _told(self, name: str, counts: _Counts) -> NodeStatistics:
        run = Durations.of(counts.run)
        failed = sum(counts.errors.values())
        return NodeStatistics(
            name=name,
            accepted=counts.accepted,
            calls=run.count,
            errors=dict(counts.errors),
            run=run,
            recent=Recent(self._started_at, run.count, failed, run.p50_ns, run.p99_ns),
        )
