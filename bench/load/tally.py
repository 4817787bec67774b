"""What one generator process counts, and how the counts of several are put together. Pure.

Calls planned in the warm-up are sent and awaited as all others, and counted nowhere else. Times
are ns after the beginning of the run.

Mirror: tests/bench/load/test_tally.py.
"""

import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from .histogram import Histogram, Recorder
from .plan import Plan

LATE_NS: Final = 1_000_000
"""A call that is sent so much behind its planned time is counted as late."""

WAITED: Final = frozenset({"DEADLINE_EXCEEDED", "UNANSWERED"})
"""Errors of calls that were waited for in vain. Their latencies count: without them a server that
loses its slowest calls would look quick. Those of others don't: a quick refusal would flatter.
"""


class Tally:
    """The counts of one process; an interval more than planned holds what is answered later.

    Takes the same memory all along, but for some KB of each interval that is over.
    """

    def __init__(self, plan: Plan, kinds: int) -> None:
        self._warmup_ns = round(plan.warmup_s * 1e9)
        self._interval_ns = round(plan.interval_s * 1e9)
        self._last = plan.intervals  # index of the drain
        # ns after the warm-up from when on answers belong to the drain
        self._until_ns = self._last * self._interval_ns
        self._latency = Recorder()  # of the interval that is on, by when the answer came
        self._interval = 0  # its index
        self._over: dict[int, bytes] = {}  # index -> latencies of an interval that is over
        self._service = Recorder()
        self._lag = Recorder()
        self._kinds = [Recorder() for _ in range(kinds)]  # latencies by kind
        self._errors: list[dict[str, int]] = [{} for _ in range(plan.intervals + 1)]
        self._kind_errors: list[dict[str, int]] = [{} for _ in range(kinds)]
        self._counts = dict.fromkeys(COUNTS, 0)
        self._events: list[tuple[float, str]] = []  # seconds after the warm-up

    def on_sent(self, planned_ns: int, sent_ns: int, *, held_back: bool) -> None:
        """Count a call that was handed to its connection."""
        counts = self._counts
        if planned_ns < self._warmup_ns:
            counts["warmup_calls"] += 1
            return
        counts["sent"] += 1
        counts["held_back"] += held_back
        lag_ns = sent_ns - planned_ns
        self._lag.record(lag_ns)
        counts["late"] += lag_ns > LATE_NS

    def on_unsent(self, planned_ns: int) -> None:
        """Count a call that could not be sent at all."""
        if planned_ns >= self._warmup_ns:
            self._counts["unsent"] += 1

    def on_dropped(self, count: int) -> None:
        """Count so many calls that were planned after the warm-up and are given up."""
        self._counts["unsent"] += count

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
        within_ns = now_ns - self._warmup_ns
        is_in_time = within_ns < self._until_ns
        interval = within_ns // self._interval_ns if is_in_time else self._last
        if interval != self._interval:
            self._turn_to(interval)
        self._counts["drained"] += interval == self._last
        if code is not None:
            for errors in (self._errors[interval], self._kind_errors[kind]):
                errors[code] = errors.get(code, 0) + 1
            if code not in WAITED:
                return
        self._latency.record(now_ns - planned_ns)
        self._kinds[kind].record(now_ns - planned_ns)
        self._service.record(now_ns - sent_ns)

    def on_stopped(self, now_ns: int) -> None:
        """Take in that nothing more is sent, before the end of the plan."""
        self._until_ns = min(self._until_ns, max(0, now_ns - self._warmup_ns))

    def on_event(self, at_ns: int, what: str) -> None:
        """Note what has happened to the run itself."""
        if len(self._events) < EVENTS_MAX:
            self._events.append((round((at_ns - self._warmup_ns) / 1e9, 3), what))

    def values(self) -> "TallyValues":
        """Return all of it as it travels."""
        self._turn_to(self._interval)
        nothing = packed(Histogram())
        return TallyValues(
            latency=[
                _unpack(zlib.decompress(self._over[index])) if index in self._over else nothing
                for index in range(self._last + 1)
            ],
            service=packed(self._service.histogram()),
            lag=packed(self._lag.histogram()),
            kinds=[packed(each.histogram()) for each in self._kinds],
            errors=self._errors,
            kind_errors=self._kind_errors,
            counts=self._counts,
            events=self._events,
        )

    def _turn_to(self, interval: int) -> None:
        """Put away the latencies of the interval that was on, and count those of another."""
        found = self._latency.take()
        before = self._over.get(self._interval)
        if before is not None:
            found.add(unpacked(_unpack(zlib.decompress(before))))
        if found.count:
            self._over[self._interval] = zlib.compress(_pack(packed(found)))
        self._interval = interval


class Totals:
    """What the processes of a run have counted, put together; lists are by interval or kind.

    Attributes:
        counts: By the names of `COUNTS`.
        events: Seconds after the warm-up, and what happened; `EVENTS_MAX` at most.
    """

    def __init__(self, plan: Plan, kinds: int, parts: Iterable["TallyValues"] = ()) -> None:
        self.latency = [Histogram() for _ in range(plan.intervals + 1)]
        self.service = Histogram()
        self.lag = Histogram()
        self.kinds = [Histogram() for _ in range(kinds)]
        self.errors: list[Counter[str]] = [Counter() for _ in self.latency]
        self.kind_errors: list[Counter[str]] = [Counter() for _ in self.kinds]
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.events: list[tuple[float, str]] = []
        for part in parts:
            self._add(part)

    def _add(self, values: "TallyValues") -> None:
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
        self.counts.update(values.counts)
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
