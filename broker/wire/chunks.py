"""How large the next chunk of a map is, by what the last ones have taken. Pure.

A chunk should run for `TARGET_MS`: short enough that the workers end together and a slow item holds
up few others, long enough that a message's cost vanishes. The size follows the run time that the
worker measured; it starts at one item, for nothing is known of a node before it has run.

Mirror: tests/broker/wire/test_chunks.py.
"""

from typing import Final

from .limits import MIB

TARGET_MS: Final = 4.0
CHUNK_ITEMS_MAX: Final = 20_000
CHUNK_BYTES_MAX: Final = 1 * MIB
IN_FLIGHT_MAX: Final = 64
"""Chunks in flight: at least one for each of so many workers while a node is not yet known."""

_GROWTH: Final = 16  # a chunk has at most so many times the items of the largest that came back


def next_size(size: int, count: int, run_ms: float, result_bytes: int) -> int:
    """Return how many items the next chunks have.

    Args:
        size: How many they have so far.
        count: Items of a chunk that has come back whole, at least one.
        run_ms: Run time of all of them; what is no number counts as none.
        result_bytes: Bytes of their results.
    """
    wanted = int(TARGET_MS / max(1e-5, run_ms / count))  # in that order NaN is 1e-5
    by_bytes = count * CHUNK_BYTES_MAX // max(1, result_bytes)
    # A small chunk that comes back late must not shrink what larger ones have shown since.
    grown = max(size, count * _GROWTH)
    return max(1, min(wanted, by_bytes, grown, CHUNK_ITEMS_MAX))
