"""How much memory the broker has, against its bound. An IO shell.

All that the broker holds is bounded by itself (queues, grants, unread replies); what libzmq holds
for peers is not: a message may have any number of frames, of which each takes many times its own
bytes before the broker sees the first. So the sum is looked at too, which takes 1 us.

Mirror: tests/broker/test_memory.py.
"""

import ctypes
import os
from enum import Enum
from math import inf

_OVER = 1.5  # times the bound: nothing that is refused or dropped helps any more

TRIM_S = 0.5
"""How often the C library is asked to give back what is free, at most: it takes milliseconds."""

TIGHT_S = 10.0
"""So long above the bound: what is held was given up long ago, and memory does not come back."""


class Pressure(Enum):
    """How the memory stands to its bound."""

    NONE = "none"
    TIGHT = "tight"  # above the bound
    OVER = "over"  # far above, or above for long


class Memory:
    """Looks at the resident memory of the process that it is in."""

    def __init__(self, bound: int) -> None:
        self._bound_pages = bound // os.sysconf("SC_PAGE_SIZE")
        self._fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._trim = ctypes.CDLL(None).malloc_trim
        self._trimmed_at = -inf  # monotonic seconds
        self._tight_since = inf

    def expect_less(self) -> None:
        """Have the next `look` give back what is free, for much was let go of."""
        self._trimmed_at = -inf

    def look(self, now: float) -> Pressure:
        """Tell how it stands; what is free and was kept for later is given back first."""
        pages = self._pages()
        if pages > self._bound_pages and now - self._trimmed_at >= TRIM_S:
            self._trimmed_at = now
            self._trim(0)
            pages = self._pages()
        if pages <= self._bound_pages:
            self._tight_since = inf
            return Pressure.NONE
        self._tight_since = min(self._tight_since, now)
        is_over = pages > _OVER * self._bound_pages or now - self._tight_since > TIGHT_S
        return Pressure.OVER if is_over else Pressure.TIGHT

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)

    def _pages(self) -> int:
        return int(os.pread(self._fd, 128, 0).split(maxsplit=2)[1])
