"""Two records against each other: is B different from A, or is that noise? Pure.

Calls that follow each other share what slows them, so a bootstrap over calls would take noise for a
difference. Whole blocks of time are drawn instead, with replacement; a difference whose interval of
95 % holds 0 is none. What differs from one start of the server to the next is in neither record.

Mirror: tests/bench/load/test_compare.py.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError

from .histogram import Histogram
from .record import PERCENTS, Record, called, is_shown

BLOCKS_MIN: Final = 10
BLOCKS_MAX: Final = 60
RESAMPLES: Final = 400
_LOW, _HIGH = 0.025, 0.975


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, in ns or calls a second: B - A, and where that lies in 95 % of all draws."""

    metric: str
    unit: str
    a: float
    b: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether there is no difference, as far as these runs can tell."""
        return self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """Say it in words; of latencies less is better, of rates more."""
        if self.is_noise:
            return "no difference"
        return "better" if (self.b < self.a) == (self.unit == "ns") else "worse"


class Block(msgspec.Struct, frozen=True):
    """Some intervals that follow each other."""

    latency: Histogram
    results: int
    seconds: float


def compare(a: Record, b: Record) -> list[Difference]:
    """Compare two runs.

    Raises:
        InvalidArgumentError: They are unlike, invalid or too short.
    """
    reasons = unlikeness(a, b)
    if reasons:
        raise InvalidArgumentError("; ".join(reasons))
    random = Random(1)
    blocks = [_blocks(each) for each in (a, b)]
    draws = [[_drawn(each, random) for each in blocks] for _ in range(RESAMPLES)]
    count = min(a.latency.count, b.latency.count)
    shown = [percent for percent in PERCENTS if is_shown(percent, count)]
    percentiles = [[each.latency.percentiles(shown) for each in pair] for pair in draws]
    differences = []
    for index, percent in enumerate(shown):
        first, second = a.latency.at(percent), b.latency.at(percent)
        assert first is not None
        assert second is not None
        spread = [of_b[index] - of_a[index] for of_a, of_b in percentiles]
        differences.append(_difference(f"p{percent:g}", "ns", first, second, spread))
    spread_of_rates = [_rate(of_b) - _rate(of_a) for of_a, of_b in draws]
    differences.append(
        _difference("achieved", "calls/s", a.achieved_per_s, b.achieved_per_s, spread_of_rates)
    )
    return differences


def unlikeness(a: Record, b: Record) -> list[str]:
    """Say why two runs can't be compared; the seed and the place may differ."""
    reasons = [
        f"{name} is invalid: {record.problems[0]}"
        for name, record in (("A", a), ("B", b))
        if not record.valid
    ]
    same: dict[str, Callable[[Record], object]] = {
        "loop": lambda record: record.loop,
        "profile": lambda record: record.plan.profile,
        "rate": lambda record: record.plan.rate,
        "outstanding": lambda record: record.plan.closed,
        "duration": lambda record: record.plan.duration_s,
        "speed": lambda record: record.plan.speed,
        "durability": lambda record: record.plan.durability,
        "timeout": lambda record: record.plan.timeout_s,
        "clients": lambda record: record.plan.clients,
        "protocol": lambda record: record.target.partition(" ")[0],
        "calls": lambda record: [
            f"{called(kind)} x{kind.weight:g} params {kind.digest}" for kind in record.kinds
        ],
    }
    for what, of in same.items():
        if of(a) != of(b):
            reasons.append(f"{what}: {of(a)} in A, {of(b)} in B")
    if min(len(a.intervals), len(b.intervals)) <= BLOCKS_MIN:
        reasons.append(f"fewer than {BLOCKS_MIN} intervals: run for at least 1 s")
    return reasons


def _blocks(record: Record) -> list[Block]:
    """Put intervals together so that there are at most `BLOCKS_MAX`; the drain goes to the last."""
    intervals = record.intervals
    size = -(-len(intervals) // BLOCKS_MAX)
    blocks = []
    for begin in range(0, len(intervals) - 1, size):
        end = begin + size
        part = intervals[begin : end if end < len(intervals) - 1 else None]
        latency = Histogram()
        for interval in part:
            latency.add(Histogram.decode(interval.latency))
        answered = sum(each.answered - sum(each.errors.values()) for each in part if each.seconds)
        blocks.append(Block(latency, answered, sum(each.seconds for each in part)))
    return blocks


def _drawn(blocks: Sequence[Block], random: Random) -> Block:
    """Draw as many blocks as there are, with replacement, and put them together."""
    latency = Histogram()
    drawn = random.choices(blocks, k=len(blocks))
    for block in drawn:
        latency.add(block.latency)
    return Block(
        latency, sum(block.results for block in drawn), sum(block.seconds for block in drawn)
    )


def _rate(block: Block) -> float:
    return block.results / block.seconds


def _difference(metric: str, unit: str, a: float, b: float, spread: Sequence[float]) -> Difference:
    ordered = sorted(spread)
    low, high = (ordered[round(at * (len(ordered) - 1))] for at in (_LOW, _HIGH))
    return Difference(metric=metric, unit=unit, a=a, b=b, low=low, high=high)
