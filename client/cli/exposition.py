"""Statistics in Prometheus' text format, version 0.0.4. Pure.

Names and units by Prometheus' conventions: base units (seconds, bytes), ``_total`` for counters.
Histograms have the same buckets in every scrape, a subset of those that are counted in, so that
nothing is estimated on the way.

Mirror: tests/client/cli/test_exposition.py.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from pronghorn.broker.wire.statistics import Durations, NodeStatistics, Statistics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS_NS: Final = tuple(2**bits - 1 for bits in range(10, 37))
"""Largest values of the buckets that are told, 1 us to 69 s: the last of each power of two."""

_COUNTERS: Final = {
    "accepted": ("requests_accepted", "Requests that were accepted; a chunk of a map is one."),
    "completed": ("requests_completed", "Accepted requests that ended with a result."),
    "failed": ("requests_failed", "Accepted requests that ended with an error."),
    "malformed": ("frames_malformed", "Frames of clients that could not be read."),
    "late_results": ("results_late", "Results that came after their request had ended."),
    "taken_back": ("requests_taken_back", "Requests taken back from blocked workers."),
    "workers_lost": ("workers_lost", "Workers that ended unasked."),
    "banned": ("clients_banned", "Clients that broke their grant."),
    "retried": ("requests_retried", "Attempts beyond the first."),
    "quarantined": ("quarantines", "Times that a node was put into quarantine."),
    "stuck": ("requests_stuck", "Requests that ran on long after they were given up."),
    "records_refused": ("records_refused", "Records that the journal could not keep."),
    "journal_broken": ("journal_streams_broken", "Streams that the journal could not read."),
    "returned": ("requests_returned", "Calls of nodes left to their callers' workers to run."),
}
"""Name in the statistics -> name here, help. ``refused`` is told by reason instead."""

_NODE_GAUGES: Final[tuple[tuple[str, str, Callable[[NodeStatistics], int]], ...]] = (
    ("queued", "Requests of the node that wait for a worker.", lambda node: node.queued),
    ("held", "Requests of the node that workers hold.", lambda node: node.held),
    ("quarantined", "Whether the node is in quarantine.", lambda node: int(node.quarantined)),
)
_NODE_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[NodeStatistics], Durations]], ...]] = (
    ("run", "Run times of calls and items that ended with a result.", lambda node: node.run),
    ("queue", "How long requests waited for a worker.", lambda node: node.queue),
)
"""Name here, help, and what the value is."""

Labels = Mapping[str, str]


class _Page:
    """The lines of one page."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def counter(self, name: str, text: str, values: Iterable[tuple[Labels, int]]) -> None:
        self._family(f"{name}_total", "counter", text, values)

    def gauge(self, name: str, text: str, values: Iterable[tuple[Labels, float | None]]) -> None:
        self._family(name, "gauge", text, values)

    def histogram(self, name: str, text: str, values: Iterable[tuple[Labels, Durations]]) -> None:
        self._begin(name, "histogram", text)
        for labels, durations in values:
            for bound, count in _cumulated(durations):
                self._sample(f"{name}_bucket", {**labels, "le": bound}, count)
            self._sample(f"{name}_sum", labels, durations.sum_ns / 1e9)
            self._sample(f"{name}_count", labels, durations.count)

    def _family(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        text: str,
        values: Iterable[tuple[Labels, float | None]],
    ) -> None:
        self._begin(name, kind, text)
        for labels, value in values:
            if value is not None:
                self._sample(name, labels, value)

    def _begin(self, name: str, kind: str, text: str) -> None:
        self.lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def _sample(self, name: str, labels: Labels, value: float) -> None:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        self.lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")


def exposition(statistics: Statistics, *, wall_clock_s: float) -> str:
    """Write a page of metrics.

    Args:
        statistics: What they are.
        wall_clock_s: The time of day when those were made, seconds since 1970.
    """
    page = _Page()
    up_s = statistics.at - statistics.started_at
    page.gauge(
        "pronghorn_start_time_seconds",
        "When the broker started, seconds since 1970.",
        [({"epoch": statistics.epoch}, round(wall_clock_s - up_s, 3))],
    )
    _of_broker(page, statistics)
    _of_nodes(page, statistics)
    _of_workers(page, statistics)
    return "\n".join(page.lines) + "\n"


def _of_broker(page: _Page, statistics: Statistics) -> None:
    for key, count in statistics.counters.items():
        if key != "refused":
            name, text = _COUNTERS.get(key, (key, f"Count of {key.replace('_', ' ')}."))
            page.counter(f"pronghorn_{name}", text, [({}, count)])
    refused = [({"reason": reason}, count) for reason, count in statistics.refused.items()]
    page.counter("pronghorn_requests_refused", "Requests that were not accepted.", refused)
    for name, text, value in (
        ("clients", "Clients that the broker knows.", statistics.sessions),
        ("queue_requests", "Requests that wait for a worker.", statistics.queued),
        ("queue_bytes", "Bytes of the requests that wait.", statistics.queued_bytes),
        ("unread_bytes", "Bytes of replies that clients leave unread.", statistics.unread_bytes),
        ("memory_bytes", "Resident memory of the broker.", statistics.memory_bytes),
    ):
        page.gauge(f"pronghorn_{name}", text, [({}, value)])
    text = "How long the turns of the broker's loop take, one of 64 measured."
    page.histogram("pronghorn_loop_turn_seconds", text, [({}, statistics.turns)])


def _of_nodes(page: _Page, statistics: Statistics) -> None:
    nodes = [({"node": node.name}, node) for node in statistics.nodes]
    page.counter(
        "pronghorn_node_requests",
        "Requests of the node that were accepted.",
        [(labels, node.accepted) for labels, node in nodes],
    )
    page.counter(
        "pronghorn_node_errors",
        "Requests and items that ended with an error, by its code.",
        [
            ({**labels, "code": code}, count)
            for labels, node in nodes
            for code, count in node.errors.items()
        ],
    )
    for name, text, value in _NODE_GAUGES:
        values = [(labels, value(node)) for labels, node in nodes]
        page.gauge(f"pronghorn_node_{name}", text, values)
    for name, text, times in _NODE_HISTOGRAMS:
        durations = [(labels, times(node)) for labels, node in nodes]
        page.histogram(f"pronghorn_node_{name}_seconds", text, durations)


def _of_workers(page: _Page, statistics: Statistics) -> None:
    workers = [({"worker": str(worker.id)}, worker) for worker in statistics.workers]
    states: dict[str, int] = {}
    for _, worker in workers:
        states[worker.state] = states.get(worker.state, 0) + 1
    page.gauge(
        "pronghorn_workers",
        "Worker processes, by state.",
        [({"state": state}, count) for state, count in states.items()],
    )
    page.gauge(
        "pronghorn_worker_held",
        "Requests that the worker holds.",
        [(labels, worker.held) for labels, worker in workers],
    )
    page.counter(
        "pronghorn_worker_served",
        "Requests that the worker was given and holds no more.",
        [(labels, worker.served) for labels, worker in workers],
    )
    page.gauge(
        "pronghorn_worker_memory_bytes",
        "Resident memory of the worker.",
        [(labels, worker.memory_bytes) for labels, worker in workers],
    )


def _cumulated(durations: Durations) -> Iterable[tuple[str, int]]:
    """Give bounds in seconds, and how many durations are not longer."""
    buckets = iter(durations.buckets)
    bucket = next(buckets, None)
    reached = 0
    for bound in _BOUNDS_NS:
        while bucket is not None and bucket[0] <= bound:
            reached += bucket[1]
            bucket = next(buckets, None)
        yield f"{bound / 1e9:.9g}", reached
    yield "+Inf", durations.count


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
