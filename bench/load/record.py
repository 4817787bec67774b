"""The record of one run: what ``--json`` prints and ``record.json`` holds; described in README.md.

Pure: made of what was counted, read by verdicts, comparisons and pages.
Mirror: tests/bench/load/test_record.py.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.statistics import Durations, Statistics

from .histogram import Histogram
from .mix import Kind
from .plan import Plan
from .tally import WAITED, Totals

FORMAT = "pronghorn-load/1"

PERCENTS = (50.0, 90.0, 95.0, 97.5, 99.0, 99.9, 99.99)
BEYOND_MIN = 10
"""Calls that must lie beyond a percentile: of fewer it tells what became of them, not how it is."""

CPU_MAX = 0.9
"""Of a core. A generator that is busy for longer is late because of itself."""
LAG_MAX_NS = 5_000_000
"""Of the 99th percentile of the scheduling lag."""
UNSENT_BY_ITSELF = "fell behind its own schedule"
INTERRUPTED = "interrupted before the end of the plan"


class Percentile(msgspec.Struct, frozen=True):
    """One percentile; `beyond` is how many calls took longer or as long."""

    percent: float
    ns: int
    beyond: int


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in ns; percentiles that too few calls lie beyond are left out."""

    count: int
    mean_ns: int
    max_ns: int
    percentiles: tuple[Percentile, ...]
    histogram: str  # HdrHistogram V2

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """Tell what a histogram holds."""
        shown = [percent for percent in PERCENTS if is_shown(percent, histogram.count)]
        values = histogram.percentiles(shown)
        return cls(
            count=histogram.count,
            mean_ns=round(histogram.sum_ns / histogram.count) if histogram.count else 0,
            max_ns=histogram.max_ns,
            percentiles=tuple(
                Percentile(percent, ns, beyond(percent, histogram.count))
                for percent, ns in zip(shown, values, strict=True)
            ),
            histogram=histogram.encode(),
        )

    def at(self, percent: float) -> int | None:
        """Return a percentile in ns; `None` where it is not shown."""
        return next((each.ns for each in self.percentiles if each.percent == percent), None)


class KindRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the calls of one node, or the runs of one workflow.

    `digest` tells whether others sent the same.
    """

    node: str
    workflow: bool = False
    weight: float
    parameter_sets: int
    digest: str
    latency: Latencies
    errors: dict[str, int]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """What came within one interval; the last is all that came after the end of the plan."""

    at_s: float
    seconds: float
    answered: int
    errors: dict[str, int]
    latency: str  # HdrHistogram V2


class GeneratorRecord(msgspec.Struct, frozen=True):
    """What one generator process has taken: of a core, and of memory at most."""

    pid: int
    cpu: float
    memory_bytes: int


class BrokerNode(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker has counted of one node meanwhile, of all its clients; at most 1/16 off."""

    node: str
    calls: int
    errors: dict[str, int]
    run_p50_ns: int
    run_p99_ns: int
    queue_p50_ns: int
    queue_p99_ns: int


class Trial(msgspec.Struct, frozen=True):
    """One rate that a search has tried."""

    rate: float
    passed: bool
    p50_ns: int | None
    p99_ns: int | None
    why: str


class Knee(msgspec.Struct, frozen=True):
    """The highest rate found at which a condition held; `None` if at none that was tried."""

    condition: str
    rate: float | None
    trials: tuple[Trial, ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. The attributes are described in README.md."""

    format: str = FORMAT
    loop: Literal["open", "closed"]
    target: str
    plan: Plan
    valid: bool
    problems: tuple[str, ...]
    ran_s: float
    counts: dict[str, int]
    offered_per_s: float | None
    achieved_per_s: float
    errors: dict[str, int]
    latency: Latencies
    service: Latencies
    lag: Latencies
    kinds: tuple[KindRecord, ...]
    intervals: tuple[Interval, ...]
    generators: tuple[GeneratorRecord, ...]
    broker: tuple[BrokerNode, ...]
    events: tuple[tuple[float, str], ...]
    environment: dict[str, Any]
    knee: Knee | None = None

    @property
    def is_open(self) -> bool:
        """Whether its calls had planned times."""
        return self.loop == "open"

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody has ended it before its time."""
        return any(problem.startswith(INTERRUPTED) for problem in self.problems)


def called(kind: KindRecord) -> str:
    """Say what was called, for people."""
    return f"workflow {kind.node}" if kind.workflow else kind.node


def beyond(percent: float, count: int) -> int:
    """Tell how many of so many calls lie beyond a percentile."""
    return int(round(count * (100 - percent) / 100, 6))


def is_shown(percent: float, count: int) -> bool:
    """Tell whether there are enough calls for a percentile."""
    return beyond(percent, count) >= BEYOND_MIN


def make_record(
    plan: Plan,
    kinds: Sequence[Kind],
    totals: Totals,
    *,
    target: str,
    generators: Sequence[GeneratorRecord],
    broker: Sequence[BrokerNode],
    environment: dict[str, Any],
    ran_s: float | None = None,
    troubles: Sequence[str] = (),
) -> Record:
    """Make the record of a run of what was counted.

    Args:
        plan: What was planned.
        kinds: What was called.
        totals: What all processes have counted together.
        target: Kind and place of the service.
        generators: What the processes have taken.
        broker: What the broker has counted.
        environment: Where that was.
        ran_s: Seconds after the warm-up in which calls were sent; `None`: those of the plan.
        troubles: What else makes the figures invalid.
    """
    latency = Histogram()
    errors: Counter[str] = Counter()
    for each, failed in zip(totals.latency, totals.errors, strict=True):
        latency.add(each)
        errors.update(failed)
    results = [
        _results(each, failed) for each, failed in zip(totals.latency, totals.errors, strict=True)
    ]
    ran_s = plan.duration_s if ran_s is None else ran_s
    problems = [*troubles, *_problems(plan, totals, generators)]
    planned = totals.counts["sent"] + totals.counts["unsent"]
    return Record(
        loop="open" if plan.closed is None else "closed",
        target=target,
        plan=plan,
        valid=not problems,
        problems=tuple(problems),
        ran_s=ran_s,
        counts={
            "planned": planned,
            "sent": totals.counts["sent"],
            "results": sum(results),
            "errors": errors.total(),
            "unsent": totals.counts["unsent"],
            "late": totals.counts["late"],
            "held_back": totals.counts["held_back"],
            "drained": totals.counts["drained"],
            "warmup": totals.counts["warmup_calls"],
        },
        offered_per_s=_rate(planned, ran_s) if plan.closed is None else None,
        achieved_per_s=_rate(sum(results[:-1]), ran_s),
        errors=dict(errors),
        latency=Latencies.of(latency),
        service=Latencies.of(totals.service),
        lag=Latencies.of(totals.lag),
        kinds=tuple(
            KindRecord(
                node=kind.node,
                workflow=kind.workflow,
                weight=kind.weight,
                parameter_sets=len(kind.bodies),
                digest=kind.digest(),
                latency=Latencies.of(totals.kinds[index]),
                errors=dict(totals.kind_errors[index]),
            )
            for index, kind in enumerate(kinds)
        ),
        intervals=_intervals(plan, totals, results, ran_s),
        generators=tuple(generators),
        broker=tuple(broker),
        events=tuple(totals.events),
        environment=environment,
    )


def read_record(content: bytes, origin: str) -> Record:
    """Read a record that was kept.

    Raises:
        InvalidArgumentError: It is none, or of another format.
    """
    try:
        record = msgspec.json.decode(content, type=Record)
        for encoded in (record.latency.histogram, *(each.latency for each in record.intervals)):
            Histogram.decode(encoded)
    except (ValueError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"{origin} is no record of pronghorn load: {error}") from error
    if record.format != FORMAT:
        raise InvalidArgumentError(
            f"{origin} is of format {record.format!r}; this reads {FORMAT!r}"
        )
    return record


def broker_view(before: Statistics, after: Statistics, nodes: Collection[str]) -> list[BrokerNode]:
    """Tell what a broker has counted of nodes between two snapshots; nothing if it is another."""
    if before.epoch != after.epoch:
        return []
    earlier = {node.name: node for node in before.nodes}
    wanted = [node for node in after.nodes if node.name in nodes or _bare(node.name) in nodes]
    found: list[BrokerNode] = []
    for node in wanted:
        first = earlier.get(node.name)
        errors = Counter(node.errors)
        errors.subtract(first.errors if first else {})
        run = _between(first.run if first else Durations(), node.run)
        queue = _between(first.queue if first else Durations(), node.queue)
        found.append(
            BrokerNode(
                node=node.name,
                calls=node.calls - (first.calls if first else 0),
                errors={code: count for code, count in errors.items() if count},
                run_p50_ns=_percentile(run, 50),
                run_p99_ns=_percentile(run, 99),
                queue_p50_ns=_percentile(queue, 50),
                queue_p99_ns=_percentile(queue, 99),
            )
        )
    return found


def _problems(plan: Plan, totals: Totals, generators: Sequence[GeneratorRecord]) -> list[str]:
    """Say why the figures are not the server's, if they are not."""
    problems: list[str] = []
    cpu = max((each.cpu for each in generators), default=0.0)
    if cpu >= CPU_MAX:
        problems.append(f"generator saturated: {cpu:.0%} of a core; use more --processes")
    if plan.closed is not None:
        return problems
    (lag_ns,) = totals.lag.percentiles([99])
    if lag_ns > LAG_MAX_NS:
        problems.append(
            f"generator saturated: 1 % of the calls left more than {lag_ns / 1e6:.1f} ms late; "
            f"it has taken {cpu:.0%} of a core"
        )
    if any(UNSENT_BY_ITSELF in what for _, what in totals.events):
        problems.append(f"generator saturated: it {UNSENT_BY_ITSELF}")
    return problems


def _results(latency: Histogram, errors: Counter[str]) -> int:
    """Tell how many results came in an interval: its latencies but for those waited in vain."""
    return latency.count - sum(count for code, count in errors.items() if code in WAITED)


def _intervals(
    plan: Plan, totals: Totals, results: Sequence[int], ran_s: float
) -> tuple[Interval, ...]:
    """Tell of each interval until calls were sent no more, and of the drain.

    If that was before the end of the plan, what is left of an interval then is put to the one
    before if it is less than a half: a rate of a moment is none.
    """
    planned = plan.intervals
    shown = planned if ran_s >= plan.duration_s else min(planned, round(ran_s / plan.interval_s))
    groups = [range(index, index + 1) for index in range(shown)]
    if shown:
        groups[-1] = range(shown - 1, planned)
    groups.append(range(planned if shown else 0, planned + 1))
    intervals = []
    for index, group in enumerate(groups):
        begin_s = index * plan.interval_s if index < shown else ran_s
        end_s = ran_s if index >= shown - 1 else begin_s + plan.interval_s
        latency = Histogram()
        errors: Counter[str] = Counter()
        for each in group:
            latency.add(totals.latency[each])
            errors.update(totals.errors[each])
        intervals.append(
            Interval(
                at_s=round(begin_s, 6),
                seconds=round(end_s - begin_s, 6) if index < shown else 0.0,
                answered=sum(results[each] for each in group) + errors.total(),
                errors=dict(errors),
                latency=latency.encode(),
            )
        )
    return tuple(intervals)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


def _between(before: Durations, after: Durations) -> list[tuple[int, int]]:
    earlier = dict(before.buckets)
    return [(largest, count - earlier.get(largest, 0)) for largest, count in after.buckets]


def _percentile(buckets: Sequence[tuple[int, int]], percent: float) -> int:
    rank = sum(count for _, count in buckets) * percent / 100
    reached = 0
    for largest, count in buckets:
        reached += count
        if count and reached >= rank:
            return largest
    return 0
