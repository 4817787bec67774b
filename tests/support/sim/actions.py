"""What is done to a world: all randomness of a run, as a list of values."""

from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple


class Action(NamedTuple):
    """One thing that is done, so many seconds after the one before it.

    `seed` is for the dice that decide all the rest, so an action needs no other to be what it is:
    any part of a list of actions is a list of actions.
    """

    gap_s: float
    kind: str
    seed: int


# kind -> weight in calm times, weight in rough times
_WEIGHTS: dict[str, tuple[int, int]] = {
    "call": (400, 300),
    "burst": (25, 25),
    "hang": (2, 12),
    "map": (16, 24),
    "stream": (30, 40),
    "run": (20, 40),
    "ask": (24, 60),
    "cancel": (40, 80),
    "ping": (8, 8),
    "stranger": (60, 80),
    "nonsense": (6, 12),
    "flood": (1, 3),
    "pause": (4, 10),
    "goodbye": (2, 8),
    "vanish": (2, 8),
    "cut": (2, 10),
    "join": (4, 12),
    "kill": (8, 60),
    "misfit": (1, 2),
    "retire": (6, 30),
    "reload": (2, 10),
    "journal": (3, 12),
    "restart": (0, 3),
    "drain": (0, 2),
}
_KINDS = tuple(_WEIGHTS)
_CALM, _ROUGH = (tuple(accumulate(weights)) for weights in zip(*_WEIGHTS.values(), strict=True))
_GAPS_S = (0.0, 0.000_02, 0.000_1, 0.000_1, 0.000_3, 0.001, 0.004)  # the largest of a gap
_SPELL = 200  # actions after which times may turn rough or calm


def actions(seed: int) -> Iterator[Action]:
    """Give the actions that a seed stands for, without end."""
    random = Random(seed)
    while True:
        weights = random.choice((_CALM, _ROUGH))
        for _ in range(_SPELL):
            gap_s = random.random() * random.choice(_GAPS_S)
            kind = random.choices(_KINDS, cum_weights=weights)[0]
            yield Action(gap_s, kind, random.getrandbits(48))
