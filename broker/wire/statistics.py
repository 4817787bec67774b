"""What ``pronghorn.stats`` tells: a snapshot of one broker, as values.

Specified in PROTOCOL.md, section "Nodes of Pronghorn's own". Times of day are not told: moments are
seconds of the host's monotonic clock, so that they can be compared with each other and with `at`.

Mirror: tests/broker/wire/test_statistics.py.
"""

from typing import Self

import msgspec

from .histogram import Histogram

STATS = "pronghorn.stats"
"""Name of the node that tells them."""


class Durations(msgspec.Struct, frozen=True):
    """Durations that were counted, see `Histogram`.

    Attributes:
        count: How many.
        sum_ns: All of them together.
        p50_ns: The median, at most 1/16 off; 0 where nothing was counted.
        p99_ns: The 99th percentile.
        buckets: Those that are not empty, in order: largest value in ns, and how many are in it.
    """

    count: int = 0
    sum_ns: int = 0
    p50_ns: int = 0
    p99_ns: int = 0
    buckets: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """Tell what a histogram holds."""
        p50_ns, p99_ns = histogram.percentiles(50, 99)
        buckets = tuple(histogram.buckets())
        return cls(histogram.count, histogram.sum_ns, p50_ns, p99_ns, buckets)


class Recent(msgspec.Struct, frozen=True):
    """What has happened to a node lately.

    Attributes:
        since: When that begins: 30 to 60 s ago, or when the broker started if that is less.
        calls: Runs that ended with a result.
        errors: Requests and items that ended with an error.
        run_p50_ns: Median of the run times of these calls.
        run_p99_ns: Their 99th percentile.
        queue_p50_ns: Median of the times in the broker's queue.
        queue_p99_ns: Their 99th percentile.
    """

    since: float
    calls: int = 0
    errors: int = 0
    run_p50_ns: int = 0
    run_p99_ns: int = 0
    queue_p50_ns: int = 0
    queue_p99_ns: int = 0


class NodeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One node.

    Attributes:
        name: Full name.
        accepted: Requests that were accepted, a chunk as one.
        calls: Runs that ended with a result; each item of a chunk is one.
        errors: Requests, and items of chunks, that ended with an error, by its code.
        queued: Requests that wait for a worker.
        held: Requests that workers hold, most of them running.
        quarantined: Whether it is refused, for it has ended one worker after the other.
        estimate_ns: The run time that is expected, `None` before the first.
        run: Run times of `calls`, without decoding and encoding; of a chunk's items their mean.
        queue: Of the `accepted`, how long they waited until they were given to a worker for the
            first time, or given up; 0 where one was free.
        recent: The same of the last minute or so.
    """

    name: str
    accepted: int = 0
    calls: int = 0
    errors: dict[str, int] = {}
    queued: int = 0
    held: int = 0
    quarantined: bool = False
    estimate_ns: float | None = None
    run: Durations = Durations()
    queue: Durations = Durations()
    recent: Recent

    @property
    def failed(self) -> int:
        """How many ended with an error."""
        return sum(self.errors.values())


class WorkerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process; one that takes the place of another has an id of its own.

    Attributes:
        id: Its number.
        pid: Its process id, 0 before it is ready.
        state: Such as ``starting`` or ``ready``.
        stalled: Whether it is blocked by what it runs, as far as is known.
        held: Requests that it holds, begun or not.
        served: Requests that it was given and holds no more.
        started_at: When it was started.
        memory_bytes: Its resident memory, that which it shares with others included; `None` where
            that can't be read.
    """

    id: int
    pid: int = 0
    state: str
    stalled: bool = False
    held: int = 0
    served: int = 0
    started_at: float = 0.0
    memory_bytes: int | None = None


class SlowPeer(msgspec.Struct, frozen=True):
    """A client on a stream that leaves replies unread, beyond those that its socket holds."""

    pid: int
    unread_bytes: int
    unread_frames: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one broker.

    Attributes:
        epoch: Its identity.
        pid: Its process id.
        at: When the snapshot was made.
        started_at: When the broker started.
        memory_bytes: Its resident memory; `None` where that can't be read.
        sessions: Clients that it knows.
        queued: Requests that wait for a worker.
        queued_bytes: Bytes of them.
        counters: Counts since the start, by name.
        refused: Requests that were not admitted, by reason; together they are
            ``counters["refused"]``.
        turns: How long the turns of its loop take, which all that arrives meanwhile waits for: one
            turn of 64 is measured.
        unread_bytes: Replies that clients on streams leave unread, beyond what their sockets hold.
        slow_peers: Those of whom most is unread, at most 10.
        nodes: Those that are served, in their order.
        workers: In the order of their start.
    """

    epoch: str
    pid: int
    at: float = 0.0
    started_at: float = 0.0
    memory_bytes: int | None = None
    sessions: int = 0
    queued: int = 0
    queued_bytes: int = 0
    counters: dict[str, int] = {}
    refused: dict[str, int] = {}
    turns: Durations = Durations()
    unread_bytes: int = 0
    slow_peers: tuple[SlowPeer, ...] = ()
    nodes: tuple[NodeStatistics, ...] = ()
    workers: tuple[WorkerStatistics, ...] = ()
