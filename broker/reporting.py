"""Statistics as they are told: what the core has counted, and what only the shell can see.

An IO shell: reads memory from /proc and looks at the streams, both only when somebody asks.

Mirror: tests/broker/test_reporting.py.
"""

import os
from time import monotonic

import msgspec
from msgspec import Raw

from .core import BrokerCore
from .events import Report, Send
from .streams import Streams
from .wire.histogram import Histogram
from .wire.link import CODEC_JSON
from .wire.messages import Result
from .wire.statistics import Durations, Statistics, WorkerStatistics

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Reporter:
    """Makes the statistics of one broker."""

    def __init__(self, core: BrokerCore, streams: Streams) -> None:
        self._core = core
        self._streams = streams
        self._turns = Histogram()
        self._started_at = monotonic()

    def end_turn(self, begun: float) -> None:
        """Measure a turn of the loop that ends now; to be called for some of them."""
        self._turns.record(int((monotonic() - begun) * 1e9))
        self._core.step(begun)

    def answer(self, report: Report) -> Send:
        """Make the reply for who has asked."""
        as_json = report.origin is not None and report.origin.codec == CODEC_JSON
        encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
        result = Result(report.id, Raw(encode(self.statistics(monotonic()))))
        return Send(report.peer, result, report.origin)

    def statistics(self, now: float) -> Statistics:
        """Make a snapshot; some ms for hundreds of nodes."""
        self._core.step(now)
        counted = self._core.statistics(now)
        unread_bytes, slow_peers = self._streams.unread()
        return msgspec.structs.replace(
            counted,
            at=now,
            started_at=self._started_at,
            memory_bytes=resident_bytes(counted.pid),
            turns=Durations.of(self._turns),
            unread_bytes=unread_bytes,
            slow_peers=slow_peers,
            workers=tuple(map(_with_memory, counted.workers)),
        )


def resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process, pages shared with others included.

    `None` for one that is gone, or not known yet.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return None


def _with_memory(worker: WorkerStatistics) -> WorkerStatistics:
    return msgspec.structs.replace(worker, memory_bytes=resident_bytes(worker.pid))
