"""Interleaved rounds: the subjects of a group take turns, A B C A B C …, anew each round.

A round starts every subject anew, warms each up, then lets them take turns in short slices whose
samples are pooled. So a noisy second hits all subjects of the group, and the luck of one process
(memory layout, placement) enters the spread instead of the figure.

Mirror: tests/bench/test_rounds.py.
"""

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from .figures import Measurement, merge
from .subject import Subject, started

ROUNDS_MIN = 5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure.

    Attributes:
        rounds: Fresh starts of every subject; figures are medians over them.
        slices: Turns that each subject takes within a round.
        calls: Calls of one slice.
        warm_up: Calls before the first slice, not counted.
    """

    rounds: int = ROUNDS_MIN
    slices: int = 4
    calls: int = 500
    warm_up: int = 300

    def __post_init__(self) -> None:
        if min(self.rounds, self.slices, self.calls, self.warm_up) < 1:
            raise ValueError("rounds, slices, calls and warm_up must be at least 1")


Progress = Callable[[str], None]
Rounds = dict[str, list[Measurement]]
"""Name of the subject -> one measurement per round."""


def run(group: Sequence[Subject], plan: Plan, progress: Progress) -> Rounds:
    """Measure a group of subjects against each other."""
    rounds: Rounds = {subject.name: [] for subject in group}
    if len(rounds) != len(group):
        raise ValueError("the names of a group's subjects must differ")
    for number in range(plan.rounds):
        progress(f"round {number + 1} of {plan.rounds}: {', '.join(rounds)}")
        for name, measurement in _one_round(group, plan).items():
            rounds[name].append(measurement)
    return rounds


def _one_round(group: Sequence[Subject], plan: Plan) -> dict[str, Measurement]:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(subject)) for subject in group]
        for subject in running:
            subject.measure(plan.warm_up * subject.subject.share)
        slices: dict[str, list[Measurement]] = {subject.name: [] for subject in group}
        for _ in range(plan.slices):
            for subject in running:
                calls = plan.calls * subject.subject.share
                slices[subject.subject.name].append(subject.measure(calls))
    return {name: merge(parts) for name, parts in slices.items()}
