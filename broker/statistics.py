"""What the broker counts, always. Pure.

What costs a call something: it raises its node's count of accepted ones, and its run time is one
record in its node's histogram. Those that waited in the queue have another record; the many that
found a free worker are what is left. All else is counted where something rare happens, or looked up
when somebody asks.

Mirror: tests/broker/test_statistics.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .wire.errors import PronghornError
from .wire.histogram import Histogram
from .wire.messages import ItemFailure
from .wire.statistics import Durations, NodeStatistics, Recent

STEP_S = 30.0
"""What is `Recent` begins so long ago, or up to twice as long."""


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
        records_refused: Records that the journal could not keep.
        journal_broken: Times that the journal could do nothing with what it was sent.
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
    records_refused: int = 0
    journal_broken: int = 0


class Refusals:
    """Requests that were not admitted, by reason."""

    __slots__ = ("_counters", "by_reason")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.by_reason: dict[str, int] = {}

    def add(self, error: PronghornError) -> None:
        """Count one more that was refused with that error."""
        self._counters.refused += 1
        reason = getattr(error, "reason", error.code.lower())
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1


@dataclass(slots=True, eq=False)
class _Mark:
    """How far a node's counts were at one moment."""

    totals: tuple[int, int, int] = (0, 0, 0)  # of errors, results, requests
    run: Histogram = field(default_factory=Histogram)
    queue: Histogram = field(default_factory=Histogram)


_NOTHING = _Mark()


class NodeCounts:
    """What is counted of one node.

    Attributes:
        accepted: Requests that were accepted.
        run: Run times of what ended with a result.
        errors: Code -> requests and items that ended with it.
        queued: Requests that wait for a worker.
    """

    __slots__ = ("_before", "_last", "_waits", "accepted", "errors", "queued", "run")

    def __init__(self) -> None:
        self.accepted = 0
        self.run = Histogram()
        self._waits = Histogram()  # of those that had to wait in the queue and do not any more
        self.errors: dict[str, int] = {}
        self.queued = 0
        self._last = _NOTHING  # at the begin of this step
        self._before = _NOTHING  # at the begin of the step before, where `Recent` begins

    def failed(self, code: str) -> None:
        """Count an error."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def items_ended(self, mean_ns: int, items: int, failures: Sequence[ItemFailure]) -> None:
        """Count the items of a chunk, `failures` among them, that ran for `mean_ns` each."""
        self.run.record(mean_ns, items - len(failures))
        for failure in failures:
            self.failed(failure.code)

    def waited(self, seconds: float) -> None:
        """Count the time in the queue of a request that had to wait there."""
        self._waits.record(int(seconds * 1e9))

    def step(self) -> None:
        """Begin a new step; some us."""
        self._before = self._last
        totals = (sum(self.errors.values()), self.run.count, self.accepted)
        if totals != self._last.totals:
            self._last = _Mark(totals, self.run.copy(), self._queue())

    def snapshot(
        self, name: str, *, since: float, held: int, quarantined: bool, estimate_ns: float | None
    ) -> NodeStatistics:
        """Tell what was counted; `since` is when the step before began."""
        run, queue = Durations.of(self.run), self._queue()
        return NodeStatistics(
            name=name,
            accepted=self.accepted,
            calls=run.count,
            errors=dict(self.errors),
            queued=self.queued,
            held=held,
            quarantined=quarantined,
            estimate_ns=estimate_ns,
            run=run,
            queue=Durations.of(queue),
            recent=self._recent(since, queue),
        )

    def _queue(self) -> Histogram:
        """Make the histogram of all times in the queue, those of 0 included."""
        queue = self._waits.copy()
        # One that waits a second time, because it was taken back, is not among the `_waits` anew.
        queue.counts[0] += max(0, self.accepted - queue.count - self.queued)
        return queue

    def _recent(self, since: float, queue: Histogram) -> Recent:
        before = self._before
        run, queue = self.run.since(before.run), queue.since(before.queue)
        return Recent(
            since,
            run.count,
            sum(self.errors.values()) - before.totals[0],
            *run.percentiles(50, 99),
            *queue.percentiles(50, 99),
        )


class Steps:
    """Tells when a step of `STEP_S` is over, so that `Recent` can begin later."""

    __slots__ = ("_last", "since")

    def __init__(self, now: float) -> None:
        self._last = now  # when this step began
        self.since = now  # when the one before it did

    def over(self, now: float) -> int:
        """Tell how many times the counts have to step on: 0, 1, or 2 after a long pause."""
        passed = now - self._last
        if passed < STEP_S:
            return 0
        steps = 1 if passed < 2 * STEP_S else 2
        self.since = self._last if steps == 1 else now
        self._last = now
        return steps
