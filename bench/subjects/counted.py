"""Instructions per call in the server's processes, and in those of the floor.

A client's cost is left out, and the kernel's. Compared with the floor without a budget, for it
depends on processor, Python and libzmq.

Mirror: tests/bench/subjects/test_counted.py.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from ..figures import Measurement
from ..floors import zeromq
from ..instructions import EVENT, counting
from ..processes import descendants
from ..timing import Measure
from ..tree import Tree
from .calls import sync_round_trip

EXTRA = "counted per call"


@contextlib.contextmanager
def ours(event: str = EVENT) -> Iterator[Measure]:
    """Count in the broker and the workers, called by the sync client."""
    with sync_round_trip() as measure:
        tree = Tree.of_this_process()
        yield _counted(measure, [*tree.pids["broker"], *tree.pids["worker"]], event)


@contextlib.contextmanager
def floor(event: str = EVENT) -> Iterator[Measure]:
    """Count in the C proxy and its echo worker."""
    with zeromq.proxied() as measure:
        yield _counted(measure, descendants(os.getpid()), event)


def _counted(measure: Measure, pids: Sequence[int], event: str) -> Measure:
    def measure_and_count(calls: int) -> Measurement:
        with counting(pids, event) as counts:
            done = measure(calls)
        return Measurement(
            calls=calls, elapsed_ns=done.elapsed_ns, extra={EXTRA: counts[0] / calls}
        )

    return measure_and_count
