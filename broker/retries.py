"""Which lost or failed requests are tried again, and when. Pure.

Only nodes that say so (``@node(retry=Retry(...))``) are tried again, for only their authors know
that a second run does no harm. A budget bounds how much of that there is: when every call fails,
retries would multiply the load just when it can't be carried.

Mirror: tests/broker/test_retries.py.
"""

import msgspec

from .wire.table import RetryPolicy

BUDGET_MAX = 100.0
"""Retries that a node may have saved up."""

BUDGET_START = 10.0
"""What it has to begin with, so that the first crash of a quiet node is retried."""

BUDGET_RATIO = 0.2
"""What each call that ends well adds: in the long run at most one retry for five calls."""

_JITTER = 0x9E3779B1  # the golden ratio of 2**32: neighbours' numbers are spread evenly
_WORD = 2**32


class RetryBudget(msgspec.Struct):
    """What is left of one node's retries."""

    tokens: float = BUDGET_START

    def succeeded(self) -> None:
        """Note a call that ended well."""
        self.tokens = min(BUDGET_MAX, self.tokens + BUDGET_RATIO)

    def take(self) -> bool:
        """Take one retry out of it; `False` if there is none."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def retry_delay_s(policy: RetryPolicy, attempts: int, number: int) -> float | None:
    """Tell how long to wait before a request is tried again; `None` if it has had its attempts.

    The delay doubles with each attempt; up to half of it is taken off, so that those that failed
    together do not come back together.

    Args:
        policy: Of its node.
        attempts: How often it was begun, at least once.
        number: The request's, unique: what it is spread by.
    """
    if attempts >= policy.attempts:
        return None
    delay_s = min(policy.backoff_s * 2.0 ** (attempts - 1), policy.backoff_max_s)
    return delay_s * (1 - number * _JITTER % _WORD / _WORD / 2)
