"""When a worker has served for long enough and is replaced by a fresh one. Pure.

What nodes leak goes with their worker. Each worker has limits of its own, up to a tenth more or
less than what is set, so that those which were started together are not due together.

Mirror: tests/broker/test_recycling.py.
"""

from math import inf
from random import Random

import msgspec

JITTER = 0.1
"""Share by which a worker's limits differ from what is set, at most."""

LOOK_S = 1.0
"""Seconds between two looks at a worker's memory, as long as it is given requests."""


class WorkerLimits(msgspec.Struct, frozen=True):
    """How far one worker may come before it is replaced; inf: however far.

    Attributes:
        requests: Requests that it was given.
        age_s: Seconds since it was started.
        memory_bytes: Its resident memory.
    """

    requests: float = inf
    age_s: float = inf
    memory_bytes: float = inf

    def reached(self, *, requests: int, memory_bytes: int) -> str:
        """Say which limit is reached, "" when none is; its age is for its owner to look at."""
        if requests >= self.requests:
            return f"it was given {requests} requests"
        if memory_bytes >= self.memory_bytes:
            return f"it takes {memory_bytes:,} bytes of memory"
        return ""


class Recycling(msgspec.Struct, frozen=True):
    """What is set for all workers; 0 stands for no limit."""

    requests: int = 0
    age_s: float = 0.0
    memory_bytes: int = 0

    @property
    def look_s(self) -> float:
        """Seconds between two looks at a worker's memory; 0: nobody looks."""
        return LOOK_S if self.memory_bytes else 0.0

    def limits(self, random: Random) -> WorkerLimits:
        """Choose the limits of one worker."""
        return WorkerLimits(
            requests=max(1, round(_spread(self.requests, random))) if self.requests else inf,
            age_s=_spread(self.age_s, random) if self.age_s else inf,
            memory_bytes=_spread(self.memory_bytes, random) if self.memory_bytes else inf,
        )


def _spread(value: float, random: Random) -> float:
    return value * random.uniform(1.0 - JITTER, 1.0 + JITTER)
