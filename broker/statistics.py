"""Snapshots of what the broker counts, as told by ``pronghorn.status``.

Mirror: tests/broker/test_statistics.py.
"""

from dataclasses import dataclass

import msgspec


@dataclass(slots=True)
class Counters:
    """Counts since the broker's start, beside ``accepted``, the requests admitted.

    A chunk counts as one request.

    Attributes:
        completed: Those that ended with a result.
        failed: Those that ended with an error.
        refused: Requests that were not admitted.
        malformed: Frames that were no request.
        late_results: Results that came after their request had ended.
        taken_back: Requests taken back from blocked workers.
        workers_lost: Workers that ended unasked.
        banned: Clients that broke their grant.
        retried: Attempts beyond the first.
        quarantined: Times that a node was put into quarantine.
        stuck: Requests that ran on for the grace time after they were given up.
        returned: Calls of nodes given back to their callers' workers, which run them themselves.
    """

    completed: int = 0
    failed: int = 0
    refused: int = 0
    malformed: int = 0
    late_results: int = 0
    taken_back: int = 0
    workers_lost: int = 0
    banned: int = 0
    retried: int = 0
    quarantined: int = 0
    stuck: int = 0
    returned: int = 0


class NodeStatistics(msgspec.Struct, frozen=True):
    """One node: results, failures and the estimated run time in ns, `None` before the first."""

    name: str
    calls: int
    failures: int
    estimate_ns: float | None


class WorkerStatistics(msgspec.Struct, frozen=True):
    """One worker and how many requests it holds."""

    id: int
    pid: int
    state: str
    held: int


class BrokerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of one broker."""

    epoch: str
    pid: int
    sessions: int
    queued: int
    queued_bytes: int
    counters: dict[str, int]
    nodes: list[NodeStatistics]
    workers: list[WorkerStatistics]
