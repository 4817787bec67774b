"""Small random decisions, cheap and repeatable: a generator whose whole state is one integer."""

from collections.abc import Sequence
from typing import TypeVar

_MASK = 2**64 - 1
_MULTIPLIER = 6364136223846793005  # Knuth's MMIX
_INCREMENT = 1442695040888963407

Choice = TypeVar("Choice")


class Dice:
    """A generator of its own for whoever decides something, so that nobody moves another's."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = (seed * _MULTIPLIER + _INCREMENT) & _MASK

    def below(self, limit: int) -> int:
        """Give an integer from 0 to below the limit."""
        self._state = (self._state * _MULTIPLIER + _INCREMENT) & _MASK
        return (self._state >> 33) % limit

    def chance(self, one_in: int) -> bool:
        """Say yes once in so many times."""
        return self.below(one_in) == 0

    def choose(self, choices: Sequence[Choice]) -> Choice:
        """Pick one, all alike."""
        return choices[self.below(len(choices))]

    def between(self, low: float, high: float) -> float:
        """Give a number of the range, in a thousand steps."""
        return low + (high - low) * self.below(1000) / 1000

    def another(self) -> "Dice":
        """Make dice of their own for somebody."""
        return Dice(self.below(2**31))
