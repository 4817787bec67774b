"""Which nodes are refused for a while because they end their workers. Pure.

A node that crashes each time costs a worker each time, and those beside it their requests. So one
that has ended `DEATHS_MIN` workers within `WINDOW_S`, in at least half of its runs, is refused for
some seconds, then for twice as long, and so on, until a run of it ends well.

Blamed is what ran alone in a worker that ended by its own doing: a crash, an abort, an exit. Not
for our own kills, and not for SIGKILL, which comes from outside: an operator's, or the kernel's for
want of memory.

Mirror: tests/broker/test_quarantine.py.
"""

from collections import deque
from dataclasses import dataclass, field

DEATHS_MIN = 20
"""Fewer may be an accident, or a test."""

WINDOW_S = 60.0
REFUSED_S, REFUSED_MAX_S = 2.0, 60.0

_OUTSIDE = "signal 9 "  # begins the cause of a death by SIGKILL


@dataclass(slots=True, eq=False)
class Record:
    """What one node has done to its workers."""

    # when it ended one, monotonic seconds, and how many of its runs had ended well by then
    deaths: deque[tuple[float, int]] = field(default_factory=deque)
    until: float = 0.0  # when it is served again
    refused_s: float = 0.0  # for how long it was refused last; 0 if it was not, or has done well
    calls_then: int = 0  # how many of its runs had ended well when it was refused last

    def died(self, cause: str, calls: int, now: float) -> bool:
        """Note that the node has ended a worker; returns whether it is refused from now on.

        Args:
            cause: How the worker ended.
            calls: How many runs of the node have ended well so far.
            now: Monotonic seconds.
        """
        if cause.startswith(_OUTSIDE):
            return False
        deaths = self.deaths
        deaths.append((now, calls))
        while deaths[0][0] < now - WINDOW_S:
            deaths.popleft()
        if self.refused_s and calls == self.calls_then:  # as bad as before, at the first try
            self.refused_s = min(REFUSED_MAX_S, 2 * self.refused_s)
        elif len(deaths) >= DEATHS_MIN and calls - deaths[0][1] <= len(deaths):
            self.refused_s = REFUSED_S
        else:
            self.refused_s = 0.0
            return False
        self.until = now + self.refused_s
        self.calls_then = calls
        return True
