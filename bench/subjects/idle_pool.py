"""A warm pool left alone, and how often its threads woke up meanwhile.

Mirror: tests/bench/subjects/test_idle_pool.py.
"""

import contextlib
import time
from collections.abc import Iterator

from ..figures import Measurement
from ..processes import ThreadSwitches, switches
from ..timing import Measure
from ..tree import Tree
from .calls import open_pool

WARM_UP_CALLS = 1000


@contextlib.contextmanager
def silence(workers: int = 2) -> Iterator[Measure]:
    """Warm a pool, then measure so many seconds (the `calls` of the plan) of nothing.

    Sleeping is the measurement here: the time in which nothing should happen.
    """
    with open_pool(workers) as pool, pool.client() as client:
        for _ in range(WARM_UP_CALLS):
            client.call("add", a=1, b=2)
        members = Tree.of_this_process().members()

        def measure(seconds: int) -> Measurement:
            before = _by_thread(members)
            begin = time.perf_counter_ns()
            time.sleep(seconds)
            elapsed = time.perf_counter_ns() - begin
            after = _by_thread(members)
            woken = {
                label: float(found.voluntary - before[label].voluntary)
                for label, found in after.items()
            }
            return Measurement(calls=seconds, elapsed_ns=elapsed, extra=woken)

        yield measure


def _by_thread(members: list[tuple[str, int]]) -> dict[str, ThreadSwitches]:
    return {
        f"{label} / {thread.name} #{index}": thread
        for label, pid in members
        for index, thread in enumerate(switches(pid), start=1)
    }
