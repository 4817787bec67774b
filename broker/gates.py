"""The limits of a node: how many of its requests run at once, and how many begin in a second. Pure.

A request *passes* the gate of its node before it is given to a worker, and *leaves* once no worker
has it any more. What may not pass waits in a room of its own (queue.py), so that it keeps nobody
else from a worker. Calls that nodes make always pass, though they count: a chain of calls must not
wait for what it holds itself.

Mirror: tests/broker/test_gates.py.
"""

from math import inf

AHEAD_S = 0.1
"""Of a rate, so many seconds' worth may begin at once after a pause; one request at least."""


class Gate:
    """The gate of one node.

    Args:
        concurrency: Most requests that run at once, `None` for any number.
        rate: Most requests that begin in a second, in the long run; `None` for any number.
    """

    __slots__ = ("_burst", "_concurrency", "_rate", "_seen_at", "_tokens", "inside")

    def __init__(self, concurrency: int | None, rate: float | None) -> None:
        self.set_limits(concurrency, rate)
        self._tokens = self._burst  # requests that may begin now; below 0 after one of many items
        self._seen_at = 0.0  # monotonic seconds, when the tokens were counted last
        self.inside = 0  # requests that have passed and not left

    def set_limits(self, concurrency: int | None, rate: float | None) -> None:
        """Have other limits from now on; what is inside stays there."""
        self._concurrency = inf if concurrency is None else concurrency
        self._rate = rate
        self._burst = 1.0 if rate is None else max(1.0, rate * AHEAD_S)

    def wait_s(self, now: float) -> float:
        """Tell how long the next request has to wait: 0 if it may pass, `inf` until one leaves."""
        if self.inside >= self._concurrency:
            return inf
        if self._rate is None:
            return 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._seen_at) * self._rate)
        self._seen_at = now
        # A token is counted as whole that floats have left a little short of it.
        return max(0.0, (1.0 - self._tokens) / self._rate) if self._tokens < 1.0 - 1e-9 else 0.0

    def enter(self, runs: int) -> None:
        """Have a request pass that stands for so many runs of the node."""
        self.inside += 1
        if self._rate is not None:
            self._tokens -= runs

    def leave(self) -> None:
        """Note that no worker has a request any more that has passed."""
        self.inside -= 1
        assert self.inside >= 0, "each leaves once"
