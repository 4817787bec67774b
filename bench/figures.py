"""What samples become: percentiles, the spread over rounds, and ratios taken round by round. Pure.

A ratio of two subjects is formed within each round, where both ran under the same conditions,
and only then the median over the rounds is taken. That leaves out drift between rounds; it would
be wrong if the subjects of a round had not been interleaved.

Mirror: tests/bench/test_figures.py.
"""

import math
from collections.abc import Sequence

import msgspec

ALL_CPU = "CPU per call of all processes, us"
"""Key of an extra figure that bursts have: client, server and everything between."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What one subject did in one slice or round.

    Attributes:
        calls: How many calls (or items) were completed; every one was checked to be right.
        elapsed_ns: Time from the first send to the last reply.
        latencies_ns: One entry per call where calls were timed one by one, else empty.
        extra: Further figures by name, unit in the name (``broker_cpu_us_per_call``).
    """

    calls: int
    elapsed_ns: int
    latencies_ns: list[int] = []
    extra: dict[str, float] = {}


class Latency(msgspec.Struct, frozen=True):
    """Percentiles of one round, microseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Spread(msgspec.Struct, frozen=True):
    """A figure over the rounds: its median and the extremes of the rounds' own figures."""

    median: float
    low: float
    high: float


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Return the nearest-rank percentile of an ascending sequence: always an observed value."""
    if not ordered:
        raise ValueError("no samples")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    return ordered[math.ceil(fraction * len(ordered)) - 1]


def latency(samples_ns: Sequence[int]) -> Latency:
    """Sum up the latencies of one round."""
    ordered = sorted(samples_ns)
    p50, p90, p99, p999, top = (
        percentile(ordered, fraction) / 1000 for fraction in (0.5, 0.9, 0.99, 0.999, 1.0)
    )
    return Latency(p50, p90, p99, p999, top)


def median(values: Sequence[float]) -> float:
    """Return the median; of an even count the mean of the middle two."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> Spread:
    """Return median, lowest and highest of the rounds' figures."""
    return Spread(median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Divide round by round, then sum up: the median of the ratios, not the ratio of medians."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}")
    return spread([our / their for our, their in zip(ours, theirs, strict=True)])


def merge(slices: Sequence[Measurement]) -> Measurement:
    """Join the slices of one round; `extra` figures are averaged, weighted by calls.

    So a subject whose extra figures are counts is to be measured in one slice.
    """
    calls = sum(part.calls for part in slices)
    names = {name for part in slices for name in part.extra}
    return Measurement(
        calls=calls,
        elapsed_ns=sum(part.elapsed_ns for part in slices),
        latencies_ns=[sample for part in slices for sample in part.latencies_ns],
        extra={
            name: sum(part.extra.get(name, 0.0) * part.calls for part in slices) / calls
            for name in sorted(names)
        },
    )
