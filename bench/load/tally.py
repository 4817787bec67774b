"""What one generator process counts, and how the counts of several are put together. Pure.

Calls planned in the warm-up are sent and awaited as all others, and counted nowhere else. Times
are ns after the beginning of the run.

Mirror: tests/bench/load/test_tally.py.
"""

import zlib
from collections import Counter
from typing import Any, Final

import msgspec

from .histogram import Histogram
from .plan import Plan

LATE_NS: Final = 1_000_000
"""A call that is sent so much behind its planned time is counted as late."""

WAITED: Final = frozenset({"DEADLINE_EXCEEDED", "UNANSWERED"})
"""Errors of calls that were waited for in vain. Their latencies count: without them a server that
loses its slowest calls would look quick. Those of others don't: a quick refusal would flatter.
"""


class Tally:
    """The counts of one process; an interval more than planned holds what is answered later."""

    def __init__(self, plan: Plan, kinds: int) -> None:
        self._warmup_ns = round(plan.warmup_s * 1e9)
        self._interval_ns = round(plan.interval_s * 1e9)
        intervals = plan.intervals
        self.latency = [Histogram() for _ in range(intervals + 1)]  # by when the answer came
        # Of intervals that are over, by their index: what was in `latency` until `pack_before`.
        self._over: dict[int, bytes] = {}
        self.service = Histogram()
        self.lag = Histogram()
        self.kinds = [Histogram() for _ in range(kinds)]  # latencies by kind
        self.errors: list[Counter[str]] = [Counter() for _ in range(intervals + 1)]
        self.kind_errors: list[Counter[str]] = [Counter() for _ in range(kinds)]
        self.warmup_calls = self.sent = self.late = self.unsent = self.held_back = 0
        self.drained = 0  # answered after the plan's end
        self.events: list[tuple[float, str]] = []  # seconds after the warm-up; EVENTS_MAX at most

    def on_sent(self, planned_ns: int, sent_ns: int, *, held_back: bool) -> None:
        """Count a call that was handed to its connection."""
        if planned_ns < self._warmup_ns:
            self.warmup_calls += 1
            return
        self.sent += 1
        self.held_back += held_back
        lag_ns = sent_ns - planned_ns
        self.lag.record(lag_ns)
        self.late += lag_ns > LATE_NS

    def on_unsent(self, planned_ns: int) -> None:
        """Count a call that could not be sent at all."""
        if planned_ns >= self._warmup_ns:
            self.unsent += 1

    def on_answered(
        self, planned_ns: int, sent_ns: int, now_ns: int, kind: int, code: str | None
    ) -> None:
        """Count an answer.

        Args:
            planned_ns: When the call was to be sent.
            sent_ns: When it was.
            now_ns: When its answer came.
            kind: Index of its kind.
            code: Of its error, if it failed.
        """
        if planned_ns < self._warmup_ns:
            return
        last = len(self.latency) - 1
        interval = min((now_ns - self._warmup_ns) // self._interval_ns, last)
        self.drained += interval == last
        if code is not None:
            self.errors[interval][code] += 1
            self.kind_errors[kind][code] += 1
            if code not in WAITED:
                return
        self.latency[interval].record(now_ns - planned_ns)
        self.kinds[kind].record(now_ns - planned_ns)
        self.service.record(now_ns - sent_ns)

    def on_event(self, at_ns: int, what: str) -> None:
        """Note what has happened to the run itself."""
        if len(self.events) < EVENTS_MAX:
            self.events.append((round((at_ns - self._warmup_ns) / 1e9, 3), what))

    def pack_before(self, now_ns: int) -> None:
        """Pack the intervals that are over, into which no more answers come.

        Each takes some KB so, and a hundred times that as it was; a run of hours has 240 of them.
        """
        reached = min((now_ns - self._warmup_ns) // self._interval_ns, len(self.latency) - 1)
        for index in range(reached):
            if self.latency[index].count and index not in self._over:
                self._over[index] = zlib.compress(_pack(packed(self.latency[index])))
                self.latency[index] = Histogram()

    def values(self) -> "TallyValues":
        """Return all of it as it travels."""
        return TallyValues(
            latency=[packed(self._whole(index)) for index in range(len(self.latency))],
            service=packed(self.service),
            lag=packed(self.lag),
            kinds=[packed(each) for each in self.kinds],
            errors=[dict(each) for each in self.errors],
            kind_errors=[dict(each) for each in self.kind_errors],
            counts={name: getattr(self, name) for name in COUNTS},
            events=self.events,
        )

    def _whole(self, index: int) -> Histogram:
        """Return an interval's latencies, those that are packed included."""
        if index not in self._over:
            return self.latency[index]
        whole = unpacked(_unpack(zlib.decompress(self._over[index])))
        whole.add(self.latency[index])
        return whole

    def add(self, values: "TallyValues") -> None:
        """Add what another process has counted of the same plan."""
        for mine, theirs in zip(self.latency, values.latency, strict=True):
            mine.add(unpacked(theirs))
        for mine, theirs in zip(self.kinds, values.kinds, strict=True):
            mine.add(unpacked(theirs))
        self.service.add(unpacked(values.service))
        self.lag.add(unpacked(values.lag))
        for count, other in zip(self.errors, values.errors, strict=True):
            count.update(other)
        for count, other in zip(self.kind_errors, values.kind_errors, strict=True):
            count.update(other)
        for name, more in values.counts.items():
            setattr(self, name, getattr(self, name) + more)
        self.events = sorted([*self.events, *values.events])[:EVENTS_MAX]


EVENTS_MAX: Final = 100
COUNTS: Final = ("warmup_calls", "sent", "late", "unsent", "held_back", "drained")

Packed = tuple[dict[int, int], int, int]
"""A histogram as it travels: counts, sum and maximum."""


class TallyValues(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has counted, as it travels to who puts it together."""

    latency: list[Packed]
    service: Packed
    lag: Packed
    kinds: list[Packed]
    errors: list[dict[str, int]]
    kind_errors: list[dict[str, int]]
    counts: dict[str, int]
    events: list[tuple[float, str]]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Packed).decode


def packed(histogram: Histogram) -> Packed:
    """Make of a histogram what travels."""
    return histogram.counts, histogram.sum_ns, histogram.max_ns


def unpacked(values: Any) -> Histogram:
    """Make it a histogram again."""
    histogram = Histogram()
    histogram.counts, histogram.sum_ns, histogram.max_ns = values
    histogram.count = sum(histogram.counts.values())
    return histogram
