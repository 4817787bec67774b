"""The nodes that the benchmarks call, served by Pronghorn.

Mirror: tests/bench/test_nodes.py.
"""

import time

from pronghorn.bench.floors.functions import count
from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers: the smallest call there is."""
    return a + b


@node
def add_after(a: int, b: int, spin_ns: int) -> int:
    """Sum of two integers after a busy wait: a call made slower on purpose, for `guard --prove`."""
    end = time.perf_counter_ns() + spin_ns
    while time.perf_counter_ns() < end:
        pass
    return a + b


@node
def echo(value: bytes) -> bytes:
    """Give back what came."""
    return value


@node
def concat(a: str, b: str) -> str:
    """Two strings joined."""
    return a + b


@node
def cpu_1ms(loops: int) -> int:
    """Count that far: CPU-bound, 1 ms when `loops` comes from `calibrate_count`."""
    return count(loops)


@node
def nap_2ms() -> None:
    """Sleep for 2 ms, as a blocking call to elsewhere would."""
    time.sleep(0.002)


@node
def quick_or_slow(slow_s: float = 0.0) -> float:
    """Quick, except when its argument says how long to take."""
    if slow_s:
        time.sleep(slow_s)
    return slow_s
