"""When which call is sent: the whole schedule follows from a profile and a seed. Pure.

The rate over time is a row of segments, in each of which it is constant or changes evenly. Calls
lie where its integral reaches 0, 1, 2, …, or random steps of mean 1 (a Poisson process). So the
schedule is fixed before the run whatever becomes of the calls, and yet takes no memory: every
process goes through it by itself and picks its own share.

Mirror: tests/bench/load/test_plan.py.
"""

from collections.abc import Iterator
from itertools import accumulate
from math import ceil, inf, sqrt
from random import Random
from typing import Literal

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.messages import Durability

Profile = Literal["const", "step", "ramp", "spike", "poisson", "replay"]
"""Shape of the rate over time. ``replay`` has none: its times are a trace's (replay.py)."""
PROFILES: tuple[Profile, ...] = ("const", "step", "ramp", "spike", "poisson")

RATE_MAX = 1_000_000.0
"""Calls a second: no Python process sends a tenth of that, so more is a slip of the keyboard."""
DURATION_MAX_S = 24 * 3600.0
INTERVALS_MAX = 240
"""Of a run, each with a histogram of its own: what bounds a run's memory however long it is."""
INTERVAL_MIN_S = 0.1
CLIENTS_MAX = 1_000
PROCESSES_MAX = 64
TIMEOUT_MAX_S = 3600.0
OUTSTANDING_MAX = 100_000

STEPS = 4
SPIKE = 3.0  # times the rate, in the middle fifth


class Segment(msgspec.Struct, frozen=True):
    """A part of a schedule: the rate goes evenly from one value to another."""

    seconds: float
    rate_from: float
    rate_to: float

    @property
    def calls(self) -> float:
        """How many calls that makes."""
        return self.seconds * (self.rate_from + self.rate_to) / 2

    def time_of(self, call: float) -> float:
        """Tell how many seconds after its beginning the integral reaches a number, below `calls`.

        Not the textbook's root, which divides by zero where the rate is constant.
        """
        slope = (self.rate_to - self.rate_from) / self.seconds
        return 2 * call / (self.rate_from + sqrt(self.rate_from**2 + 2 * slope * call))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send when.

    Attributes:
        profile: Shape of the rate over time; ``poisson`` is ``const`` with random distances.
        rate: Calls a second: all along, in the end of ``ramp`` and ``step``, beside the ``spike``.
        duration_s: How long calls are planned that count.
        warmup_s: How long before that calls are planned, at the first rate, that don't.
        seed: What all that is random follows from.
        closed: Outstanding calls of a closed loop instead of a rate.
        clients: Connections, which take turns.
        processes: Generator processes that share the connections out.
        timeout_s: What each call is given.
        durability: What is promised of the results; `None`: what the node says.
        speed: Seconds of a trace in a second, in its replay.

    Raises:
        InvalidArgumentError: A value is beyond its limits.
    """

    profile: Profile = "const"
    rate: float = 0.0
    duration_s: float = 10.0
    warmup_s: float = 1.0
    seed: int = 1
    closed: int | None = None
    clients: int = 1
    processes: int = 1
    timeout_s: float = 10.0
    durability: Durability | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Check the limits."""
        _check("duration", self.duration_s, INTERVAL_MIN_S, DURATION_MAX_S, "s")
        _check("warm-up", self.warmup_s, 0, DURATION_MAX_S, "s")
        _check("timeout", self.timeout_s, 0.001, TIMEOUT_MAX_S, "s")
        _check("processes", self.processes, 1, PROCESSES_MAX)
        _check("clients", self.clients, self.processes, CLIENTS_MAX)
        if self.profile == "replay":
            return
        if self.profile not in PROFILES:
            raise InvalidArgumentError(
                f"profile {self.profile!r}: expected one of {', '.join(PROFILES)}"
            )
        if self.closed is None:
            _check("rate", self.rate, 0.01, RATE_MAX, "calls/s")
        else:
            _check("closed loop", self.closed, self.processes, OUTSTANDING_MAX, "outstanding")
            if self.rate or self.profile != "const":
                raise InvalidArgumentError(
                    "a closed loop has no rate and no profile: it sends when it can"
                )

    @property
    def interval_s(self) -> float:
        """Seconds of one interval of the results."""
        return max(INTERVAL_MIN_S, self.duration_s / INTERVALS_MAX)

    @property
    def intervals(self) -> int:
        """How many there are."""
        return ceil(round(self.duration_s / self.interval_s, 6))

    @property
    def is_random(self) -> bool:
        """Whether distances between calls are random."""
        return self.profile == "poisson"

    @property
    def planned_s(self) -> float:
        """Seconds from the first planned call to the end of the plan."""
        return self.warmup_s + self.duration_s

    def segments(self) -> list[Segment]:
        """Return the parts of the schedule in order; the warm-up, if there is any, is the first."""
        measured = _shape(self.profile, self.rate, self.duration_s)
        first = measured[0].rate_from
        return [Segment(self.warmup_s, first, first), *measured] if self.warmup_s else measured

    def left(self, at_ns: int, process: int) -> int:
        """Tell how many calls that count a process has left from that one of its calls on.

        Does not go through them: that could take longer than the run. Where distances are random,
        and of a trace, that's how many there are on average.
        """
        from_s = max(at_ns / 1e9, self.warmup_s)
        if self.profile == "replay":
            return max(0, round(self.rate * (self.planned_s - from_s) / self.processes))
        begin_s = calls = before = 0.0
        for segment in self.segments():
            within_s = min(max(0.0, from_s - begin_s), segment.seconds)
            slope = (segment.rate_to - segment.rate_from) / segment.seconds
            before += within_s * (segment.rate_from + slope * within_s / 2)
            calls += segment.calls
            begin_s += segment.seconds
        if self.is_random:
            return round((calls - before) / self.processes)
        first = ceil(round(before, 3))  # a time is a whole number of ns, so it is a bit off
        first += (process - first) % self.processes
        return len(range(first, ceil(calls - 1e-9), self.processes))

    def times_ns(self) -> Iterator[int]:
        """Give the planned times of all calls, ns after the beginning; the same every time."""
        random = Random(f"{self.seed} times") if self.is_random else None
        position = random.expovariate(1.0) if random else 0.0
        begin_s = calls_before = 0.0
        for segment in self.segments():
            calls = segment.calls
            while (within := position - calls_before) < calls - 1e-9:
                yield round((begin_s + segment.time_of(within)) * 1e9)
                position += random.expovariate(1.0) if random else 1.0
            begin_s += segment.seconds
            calls_before += calls


def choices(seed: int, weights: list[float]) -> Iterator[int]:
    """Give for each call in turn which of several kinds it is, without end."""
    if len(weights) == 1:
        while True:
            yield 0
    random = Random(f"{seed} mix")
    reached = list(accumulate(weights))
    kinds = range(len(weights))
    while True:
        yield random.choices(kinds, cum_weights=reached)[0]


def _shape(profile: Profile, rate: float, seconds: float) -> list[Segment]:
    if profile == "step":
        part = seconds / STEPS
        rates = [rate * step / STEPS for step in range(1, STEPS + 1)]
        return [Segment(part, each, each) for each in rates]
    if profile == "ramp":
        return [Segment(seconds, rate / 10, rate)]
    if profile == "spike":
        calm = Segment(seconds * 0.4, rate, rate)
        return [calm, Segment(seconds * 0.2, rate * SPIKE, rate * SPIKE), calm]
    return [Segment(seconds, rate, rate)]


def _check(what: str, value: float, least: float, most: float, unit: str = "") -> None:
    if not least <= value <= most or value == inf:
        raise InvalidArgumentError(
            f"{what} {value:g}: expected {least:g} to {most:,.10g} {unit}".rstrip()
        )
