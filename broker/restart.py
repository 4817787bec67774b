"""When a process that died is started again, in the words of OTP's supervisor. Pure.

Only deaths before a process was ready, or within `SETTLED_S` after, say something about the process
itself; they count against the intensity and lengthen the back-off. One that served for a while and
was killed is replaced at once, one that was just ready after about `BACKOFF_READY_MAX_S` at most:
what gets that far is worth its start, and calls wait for it. A start that fails for want of memory,
descriptors or the like is a death before ready.

Several that die while the back-off of the first has not ended were started together: that is one
failure, not several. The policy never gives up by itself: the wait has an upper bound, and whoever
has something to lose by waiting asks whether it is `exhausted`.

Mirror: tests/broker/test_restart.py.
"""

from collections import deque
from math import inf
from random import Random

INTENSITY = 4
"""Early deaths within `PERIOD_S` after which a pool that never became ready gives up: 1.5 s."""

PERIOD_S = 60.0
SETTLED_S = 5.0
BACKOFF_FIRST_S = 0.1
BACKOFF_READY_MAX_S = 0.4  # with jitter and the 0.15 s that a broker takes to start, below 1 s
BACKOFF_MAX_S = 10.0
JITTER = 0.25
"""Share by which a wait is longer at random, at most: the trees of a host that lacks something do
not all try again at the same moment."""

assert BACKOFF_FIRST_S < BACKOFF_READY_MAX_S < BACKOFF_MAX_S < PERIOD_S


class RestartPolicy:
    """The restart decisions for one group of equal processes."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._early: deque[float] = deque()  # times of early deaths within the period, oldest first
        self._not_before = -inf  # when the last back-off ends

    def died(self, now: float, *, ready_at: float | None) -> float:
        """Note a death and return the seconds to wait before the next start.

        Args:
            now: Monotonic seconds.
            ready_at: When the process became ready, `None` if it never did.
        """
        self._forget(now)
        if ready_at is not None and now - ready_at >= SETTLED_S:
            return 0.0
        longest = BACKOFF_MAX_S if ready_at is None else BACKOFF_READY_MAX_S
        if now < self._not_before:
            return min(self._not_before - now, longest)
        self._early.append(now)
        if ready_at is not None and len(self._early) == 1:
            return 0.0
        delay = min(BACKOFF_FIRST_S * 2.0 ** (len(self._early) - 1), longest)
        delay *= 1.0 + JITTER * self._random.random()
        self._not_before = now + delay
        return delay

    def exhausted(self, now: float) -> bool:
        """Whether there were more early deaths in the period than the intensity allows."""
        self._forget(now)
        return len(self._early) > INTENSITY

    def _forget(self, now: float) -> None:
        while self._early and now - self._early[0] > PERIOD_S:
            self._early.popleft()
