"""Real pools for tests: a private runtime folder, and small limits that are quickly reached."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.client.pool import Pool

NODES = Path(__file__).parent / "served" / "nodes.py"

SMALL_LIMITS = Limits(
    request_bytes=256 * KIB,
    result_bytes=128 * KIB,
    buffers=4,
    frames=40,
    grant_requests=64,
    grant_bytes=512 * KIB,
    stranger_requests=16,
)


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[Pool]:
    """Serve `NODES` with two workers below that folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with Pool(NODES, **{"workers": 2, **options}) as pool:
            yield pool
