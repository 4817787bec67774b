"""The search for the highest rate at which a condition holds. Pure.

It doubles the rate while the condition holds, halves it while it does not, and then narrows down
what lies between the highest rate that held and the lowest that did not.

Mirror: tests/bench/load/test_knee.py.
"""

from typing import Final

from .plan import RATE_MAX

PRECISION: Final = 0.05
TRIALS_MAX: Final = 16
RATE_MIN: Final = 1.0


class KneeSearch:
    """What to try next, given what was found.

    Args:
        rate: To begin with.
        least: Below that nothing is tried: too few calls would tell nothing.
    """

    def __init__(self, rate: float, least: float = RATE_MIN) -> None:
        self._first = rate
        self._least = least
        self._trials = 0
        self.held: float | None = None  # the highest rate at which it held
        self.failed: float | None = None  # the lowest rate above that at which it did not

    def next_rate(self) -> float | None:
        """Return the next rate to try; `None` when there is nothing more to find out."""
        if self._trials >= TRIALS_MAX:
            return None
        if self.held is None and self.failed is None:
            return self._first
        if self.failed is None:
            assert self.held is not None
            return self.held * 2 if self.held * 2 <= RATE_MAX else None
        if self.held is None:
            return self.failed / 2 if self.failed / 2 >= self._least else None
        if self.failed / self.held <= 1 + PRECISION:
            return None
        return (self.held + self.failed) / 2

    def on_tried(self, rate: float, *, held: bool) -> None:
        """Take in what was found at a rate."""
        self._trials += 1
        if held:
            self.held = rate
        else:
            self.failed = rate
