"""Quick calls of a node that is slow once in a thousand: does a quick one wait for a slow one?

Two workers, and never more than one slow call (1 s) at a time, so another worker is always
there. A quick call that took over 50 ms is counted as one that waited. `paced`: an open loop,
calls planned every 1.25 ms, latency from the planned send. `kept_full`: 64 callers without a
pause, so that workers hold many calls when one turns out slow. Wrong if the machine itself
stalls for 50 ms.

Mirror: tests/bench/subjects/test_mixed.py.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from time import perf_counter

from ..figures import Measurement
from ..timing import Measure, check
from .calls import AsyncRunner, open_pool

SLOW_EVERY = 1000
SLOW_S = 1.0
WAITED_S = 0.05
PLANNED_INTERVAL_S = 1 / 800
CALLERS = 64

assert SLOW_EVERY * PLANNED_INTERVAL_S > SLOW_S, "one slow call must end before the next begins"


@contextlib.contextmanager
def paced(workers: int = 2) -> Iterator[Measure]:
    """Planned send times; every thousandth call is slow."""
    with open_pool(workers) as pool, AsyncRunner(pool.async_client) as runner:
        call = runner.client.call

        async def one(slow_s: float, planned: float) -> float:
            check(await call("quick_or_slow", slow_s=slow_s), slow_s)
            return perf_counter() - planned

        async def all_planned(calls: int) -> Measurement:
            begin = perf_counter()
            quick, slow = [], []
            async with asyncio.TaskGroup() as group:
                for index in range(calls):
                    planned = begin + index * PLANNED_INTERVAL_S
                    await asyncio.sleep(planned - perf_counter())
                    if index % SLOW_EVERY == SLOW_EVERY // 2:
                        slow.append(group.create_task(one(SLOW_S, planned)))
                    else:
                        quick.append(group.create_task(one(0.0, planned)))
            return _measured([task.result() for task in quick], len(slow), begin)

        yield lambda calls: runner.run(all_planned(calls))


@contextlib.contextmanager
def kept_full(workers: int = 2) -> Iterator[Measure]:
    """Callers without a pause, until a slow call for each thousand calls asked for has ended."""
    with open_pool(workers) as pool, AsyncRunner(pool.async_client) as runner:
        call = runner.client.call

        async def until_slow_ones_ended(calls: int) -> Measurement:
            begin = perf_counter()
            quick: list[float] = []
            slow_left = max(1, calls // SLOW_EVERY)
            slow_begun, made = False, 0

            async def caller() -> None:
                nonlocal slow_begun, slow_left, made
                while slow_left:
                    made += 1
                    if made >= SLOW_EVERY and not slow_begun:
                        slow_begun, made = True, 0
                        check(await call("quick_or_slow", slow_s=SLOW_S), SLOW_S)
                        slow_begun, slow_left = False, slow_left - 1
                        continue
                    sent = perf_counter()
                    check(await call("quick_or_slow", slow_s=0.0), 0.0)
                    quick.append(perf_counter() - sent)

            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(caller())
            return _measured(quick, max(1, calls // SLOW_EVERY), begin)

        yield lambda calls: runner.run(until_slow_ones_ended(calls))


def _measured(quick: list[float], slow_calls: int, begin: float) -> Measurement:
    waited = sum(latency > WAITED_S for latency in quick)
    return Measurement(
        calls=len(quick),
        elapsed_ns=round((perf_counter() - begin) * 1e9),
        latencies_ns=[round(latency * 1e9) for latency in quick],
        extra={
            "slow_calls": slow_calls,
            "quick_over_50_ms": waited,
            "quick_max_ms": max(quick) * 1000,
        },
    )
