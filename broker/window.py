"""How much a worker may hold, from measured run times. Pure.

A window deeper than one hides the time between a worker's result and its next request, but what
waits in a worker may wait behind a slow request. So only nodes measured as quick wait there, and
only as much of them as a worker runs in `BUDGET_NS`; the claim (wire/slots.py) takes back what a
normally quick node that is slow this once has blocked.

Times are floats throughout: to compare or add a float and an int takes several times as long.

Mirror: tests/broker/test_window.py.
"""

from .wire.limits import KIB
from .wire.slots import SLOTS_PER_WORKER

QUICK_NS = 200_000.0
"""A node measured below this may wait in a worker; about one round trip through the broker."""

BUDGET_NS = 1_000_000.0
"""Run time that a worker may hold ahead: what it loses at most when it is lost or blocked."""

LIGHT_BUDGET_NS = 80_000.0
"""The same while light clients wait beside heavy ones, whose calls in a worker they wait for: a few
of the quickest, at the price of about a third of the calls per second (``scripts/bench faults``,
"crowd")."""

LIGHT_REQUESTS = 4
"""A client with at most so many open requests is a light one."""

LIGHT_S = 0.1
"""So long after a light client's request came while others waited more of them are expected."""

OVERHEAD_NS = 15_000.0
"""Counted per request on top of its run time: decoding, encoding and the write of its result."""

WINDOW_BYTES = 128 * KIB
"""Bytes of requests a worker may hold ahead, below a socket's buffer (208 KiB by default), so that
the broker can nearly always write at once."""

CONCURRENT_PER_WORKER = SLOTS_PER_WORKER // 2
"""Most requests of async and threaded nodes in one worker; the other slots are for inline ones."""

STALL_S = 0.002
"""A worker that holds what it has not begun and was silent for so long is taken to be blocked."""

_RISE = 1 / 8  # of the difference, for a sample above the estimate
_FALL = 1 / 4  # below it: a cold first call is soon forgotten
_OUTLIER = 8.0  # a sample counts as at most so many times the estimate

assert STALL_S * 1e9 > BUDGET_NS, "a worker busy with its window must not be taken for blocked"
assert 2 * OVERHEAD_NS * SLOTS_PER_WORKER >= BUDGET_NS, "the slots are no tighter than the budget"


def estimate(previous_ns: float | None, sample_ns: int) -> float:
    """Return the new estimate of a node's run time after one more sample.

    An outlier moves it little: a node that is slow once in a thousand calls stays quick.
    """
    if previous_ns is None:
        return float(sample_ns)
    step_ns = sample_ns - previous_ns
    if step_ns < 0.0:
        return previous_ns + step_ns * _FALL
    most_ns = _OUTLIER * (previous_ns + OVERHEAD_NS) - previous_ns
    return previous_ns + (most_ns if step_ns > most_ns else step_ns) * _RISE
