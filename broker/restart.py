"""When a process that died is started again, in the words of OTP's supervisor. Pure.

Only deaths before a process was ready, or within `SETTLED_S` after, say something about the process
itself; they count against the intensity and lengthen the back-off. One that served for a while and
was killed is replaced at once, one that was just ready after `BACKOFF_READY_MAX_S` at the latest:
what gets that far is worth its start, and calls wait for it.

Mirror: tests/broker/test_restart.py.
"""

from collections import deque

INTENSITY = 5
"""Early deaths within `PERIOD_S` after which a pool that never became ready gives up."""

PERIOD_S = 60.0
SETTLED_S = 5.0
BACKOFF_FIRST_S = 0.1
BACKOFF_READY_MAX_S = 0.4  # with the 0.15 s that a broker takes to start, far below 1 s
BACKOFF_MAX_S = 10.0

assert BACKOFF_FIRST_S < BACKOFF_READY_MAX_S < BACKOFF_MAX_S < PERIOD_S


class RestartPolicy:
    """The restart decisions for one group of equal processes."""

    def __init__(self) -> None:
        self._early: deque[float] = deque()  # times of early deaths within the period, oldest first

    def died(self, now: float, *, ready_at: float | None) -> float:
        """Note a death and return the seconds to wait before the next start.

        Args:
            now: Monotonic seconds.
            ready_at: When the process became ready, `None` if it never did.
        """
        self._forget(now)
        if ready_at is not None and now - ready_at >= SETTLED_S:
            return 0.0
        self._early.append(now)
        if ready_at is not None and len(self._early) == 1:
            return 0.0
        delay = BACKOFF_FIRST_S * 2.0 ** (len(self._early) - 1)
        return min(delay, BACKOFF_MAX_S if ready_at is None else BACKOFF_READY_MAX_S)

    def exhausted(self, now: float) -> bool:
        """Whether there were more early deaths in the period than the intensity allows."""
        self._forget(now)
        return len(self._early) > INTENSITY

    def _forget(self, now: float) -> None:
        while self._early and now - self._early[0] > PERIOD_S:
            self._early.popleft()
