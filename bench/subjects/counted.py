"""What is done for a call, counted: it is the same on a quiet machine and on a busy one.

Instructions per call in the server's processes, and in those of the floor: a client's cost is left
out, and the kernel's. Compared with the floor without a budget, for it depends on processor, Python
and libzmq. And bytecodes per call in all processes, which depend on Python's version alone.

Mirror: tests/bench/subjects/test_counted.py.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from .. import bytecodes as tracing
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


@contextlib.contextmanager
def bytecodes() -> Iterator[Measure]:
    """Count in client, broker and worker; the latencies are those of traced calls."""
    with tracing.traced_children() as folder, sync_round_trip(workers=1) as measure:
        tree = Tree.of_this_process()
        roles = {"broker": tree.pids["broker"], "worker": tree.pids["worker"]}

        def measure_and_count(calls: int) -> Measurement:
            with tracing.counting(folder, roles) as counts:
                done = measure(calls)
            each = {role: count / calls for role, count in counts.items()}
            extra = each | {EXTRA: sum(each.values())}
            return Measurement(calls=calls, elapsed_ns=done.elapsed_ns, extra=extra)

        yield measure_and_count


def _counted(measure: Measure, pids: Sequence[int], event: str) -> Measure:
    def measure_and_count(calls: int) -> Measurement:
        with counting(pids, event) as counts:
            done = measure(calls)
        return Measurement(
            calls=calls, elapsed_ns=done.elapsed_ns, extra={EXTRA: counts[0] / calls}
        )

    return measure_and_count
