"""Mirror of broker/wire/chunks.py."""

from math import nan

import pytest

from pronghorn.broker.wire.chunks import CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, next_size


@pytest.mark.parametrize(
    ("size", "count", "run_ms", "result_bytes", "expected"),
    [
        (1, 1, 0.01, 1, 16),  # quick: it grows, step by step
        (16, 16, 0.16, 16, 256),
        (256, 1, 0.001, 1, 256),  # a small one does not shrink what others have shown
        (16, 16, 16.0, 16, 4),  # 1 ms each
        (4, 4, 400.0, 4, 1),  # never none
        (1000, 1000, 0.1, 1000, 16_000),
        (16_000, 16_000, 1.0, 16_000, CHUNK_ITEMS_MAX),
        (10, 10, 0.1, 10 * CHUNK_BYTES_MAX, 1),  # large results
        (10, 10, nan, 10, 160),  # what a worker should not have sent
    ],
)
def test_the_next_chunks(
    size: int, count: int, run_ms: float, result_bytes: int, expected: int
) -> None:
    assert next_size(size, count, run_ms, result_bytes) == expected
