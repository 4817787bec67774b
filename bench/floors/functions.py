"""What the standard library's pools run: the same bodies as our nodes, undecorated.

Mirror: tests/bench/floors/test_functions.py.
"""

import time


def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


def count(loops: int) -> int:
    """Count up to `loops`, holding the interpreter lock all the time."""
    total = 0
    for _ in range(loops):
        total += 1
    return total


def calibrate_count(seconds: float, samples: int = 50) -> int:
    """Return how far `count` comes in that time on this machine, at its best of several samples."""
    probe = 10_000
    best = min(_timed(probe) for _ in range(samples))
    return round(probe * seconds / best)


def _timed(loops: int) -> float:
    begin = time.perf_counter()
    count(loops)
    return time.perf_counter() - begin
