"""What is done for a call, counted: it is hardly different on a quiet machine and on a busy one.

Instructions per call in the server's processes, and in those of the floor: a client's cost is left
out, and the kernel's. Compared with the floor without a budget, for it depends on processor, Python
and libzmq. Bytecodes per call in all processes, which depend on Python's version alone. And the CPU
time of all processes, which other load on the machine does not change by much.

Mirror: tests/bench/subjects/test_counted.py.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from .. import tracing
from ..bytecodes import counting as counting_bytecodes
from ..figures import ALL_CPU, Measurement
from ..floors import zeromq
from ..injected import counting_children
from ..instructions import EVENT, counting
from ..processes import descendants, family_cpu_ns
from ..subject import resolve
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
def bytecodes(factory: str, **options: Any) -> Iterator[Measure]:
    """Count in client, broker and workers what a call of another subject runs.

    Args:
        factory: That of a subject of ours; its calls are made in this thread.
        **options: Of that factory.
    """
    with counting_children(tracing) as folder, resolve(factory)(**options) as measure:
        tree = Tree.of_this_process()
        roles = {"broker": tree.pids["broker"], "worker": tree.pids["worker"]}

        def measure_and_count(calls: int) -> Measurement:
            with counting_bytecodes(folder, roles) as counts:
                done = measure(calls)
            each = {role: count / calls for role, count in counts.items()}
            extra = each | {EXTRA: sum(each.values())}
            return Measurement(calls=calls, elapsed_ns=done.elapsed_ns, extra=extra)

        yield measure_and_count


@contextlib.contextmanager
def cpu_time(factory: str, **options: Any) -> Iterator[Measure]:
    """Add to what another subject of ours measures the CPU time of all its processes.

    Args:
        factory: That of the subject.
        **options: Of that factory.
    """
    with resolve(factory)(**options) as measure:

        def measure_and_count(calls: int) -> Measurement:
            before = family_cpu_ns()
            done = measure(calls)
            cpu_us = (family_cpu_ns() - before) / calls / 1000
            return msgspec.structs.replace(done, extra=done.extra | {ALL_CPU: cpu_us})

        yield measure_and_count


def _counted(measure: Measure, pids: Sequence[int], event: str) -> Measure:
    def measure_and_count(calls: int) -> Measurement:
        with counting(pids, event) as counts:
            done = measure(calls)
        return Measurement(
            calls=calls, elapsed_ns=done.elapsed_ns, extra={EXTRA: counts[0] / calls}
        )

    return measure_and_count
