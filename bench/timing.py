"""The loops that time calls; the same for every subject, so that their cost cancels out.

A closed loop with one call outstanding: the answer to "how long does one call take", not to "how
long do calls wait under load", which needs planned send times. One clock read lies between two
calls.

Mirror: tests/bench/test_timing.py.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any

from .figures import Measurement

Measure = Callable[[int], Measurement]
"""A subject that is warm and ready: runs that many calls and says how long they took."""


def time_each(call: Callable[[], Any], expected: object, calls: int) -> Measurement:
    """Call one after the other and time each; the last result must be `expected`."""
    latencies = [0] * calls
    result: object = None
    begin = before = perf_counter_ns()
    for index in range(calls):
        result = call()
        after = perf_counter_ns()
        latencies[index] = after - before
        before = after
    check(result, expected)
    return Measurement(calls=calls, elapsed_ns=before - begin, latencies_ns=latencies)


async def time_each_async(
    call: Callable[[], Awaitable[Any]], expected: object, calls: int
) -> Measurement:
    """Do the same with awaitables."""
    latencies = [0] * calls
    result: object = None
    begin = before = perf_counter_ns()
    for index in range(calls):
        result = await call()
        after = perf_counter_ns()
        latencies[index] = after - before
        before = after
    check(result, expected)
    return Measurement(calls=calls, elapsed_ns=before - begin, latencies_ns=latencies)


def time_tight(call: Callable[[], Any], expected: object, calls: int, *, burst: int) -> Measurement:
    """Time what is too short for a clock read each: `burst` calls per sample, shared out."""
    latencies = []
    result: object = None
    begin = perf_counter_ns()
    for _ in range(max(1, calls // burst)):
        before = perf_counter_ns()
        for _ in range(burst):
            result = call()
        latencies.append((perf_counter_ns() - before) // burst)
    elapsed = perf_counter_ns() - begin
    check(result, expected)
    return Measurement(calls=len(latencies) * burst, elapsed_ns=elapsed, latencies_ns=latencies)


def check(result: object, expected: object) -> None:
    """Refuse a benchmark that is quick because it is wrong."""
    if result != expected:
        raise AssertionError(f"expected {expected!r:.200}, got {result!r:.200}")
