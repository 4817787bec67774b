"""The search for the knee as a whole: a run at each rate until it is found. No IO of its own.

Mirror: tests/bench/load/test_search.py.
"""

from collections.abc import Callable
from math import ceil
from typing import Final

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError

from .knee import RATE_MIN, KneeSearch
from .record import Knee, Record, Trial
from .session import Job
from .verdict import Condition, parse_condition

RESULTS_LEAST: Final = 0.99
"""Of the planned calls, for a rate to be one that is held."""


class Found(msgspec.Struct, frozen=True):
    """What has been measured.

    Attributes:
        record: Of the run; of a search that of the highest rate that held, or else of the last.
        lost: What has ended a search before its time: its next run could not begin.
    """

    record: Record
    lost: PronghornError | None = None
    was_stopped: bool = False

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody has ended it before its time."""
        return self.was_stopped or self.record.is_interrupted


def parse_knee(text: str) -> Condition:
    """Parse the condition that holds up to the knee.

    Raises:
        InvalidArgumentError: It is none, or one that does not cease to hold under load.
    """
    condition = parse_condition(text)
    if not condition.is_limit:
        raise InvalidArgumentError(
            f"{text!r} does not cease to hold as the rate grows: search for such as p99<5ms"
        )
    return condition


def search(
    job: Job, condition: Condition, run: Callable[[Job], Record], tell: Callable[[str], None]
) -> Found:
    """Try rates until the knee is found.

    Args:
        job: At the rate to begin with.
        condition: That has to hold.
        run: Carries out a job.
        tell: Called with what became of each rate.

    Raises:
        PronghornError: No rate could be tried, or judged.
    """
    rate_least = condition.calls_least / job.plan.duration_s
    if job.plan.rate < rate_least:
        raise InvalidArgumentError(
            f"{condition.text} can't be judged with fewer than {condition.calls_least:,} calls: "
            f"give a longer --duration, or a --rate of {ceil(rate_least):,} or more"
        )
    knee = KneeSearch(job.plan.rate, max(RATE_MIN, rate_least))
    trials: list[Trial] = []
    best: Record | None = None
    record: Record | None = None
    lost: PronghornError | None = None
    while (rate := knee.next_rate()) is not None:
        plan = msgspec.structs.replace(job.plan, rate=rate)
        try:
            record = run(msgspec.structs.replace(job, plan=plan))
        except PronghornError as error:
            if record is None:
                raise
            lost = error
            break
        why = _why_not(condition, record)
        knee.on_tried(rate, held=not why)
        latency = record.latency
        trials.append(Trial(rate, not why, latency.at(50), latency.at(99), why))
        if not why and (best is None or rate > best.plan.rate):
            best = record
        tell(f"{rate:,.0f}/s: {why or 'holds'}")
        if record.is_interrupted:
            break
    assert record is not None  # there is a first rate
    found = Knee(condition.text, knee.held, tuple(trials))
    shown = msgspec.structs.replace(best or record, knee=found)
    return Found(shown, lost, record.is_interrupted)


def _why_not(condition: Condition, record: Record) -> str:
    """Say why a rate is not one at which the condition holds; nothing if it is."""
    if not record.valid:
        return record.problems[0]
    planned, results = record.counts["planned"], record.counts["results"]
    if results < planned * RESULTS_LEAST:
        return f"{planned - results:,} of {planned:,} calls gave no result"
    holds = condition.holds(record)
    if holds is None:
        return f"{record.latency.count:,} calls are too few to judge {condition.text}"
    return "" if holds else f"{condition.text} does not hold"
