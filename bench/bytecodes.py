"""Bytecodes per call: what our own code does for a call, whatever else the machine does.

Python's tracing counts them in broker, worker and client. That makes calls thirty times slower, but
the count is the same on a quiet and on a busy machine, to a hundredth: a change that adds work to
each call shows here long before it shows in times. What is done in C counts as one.

Mirror: tests/bench/test_bytecodes.py.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import tracing
from .injected import ask


@contextlib.contextmanager
def counting(folder: Path, roles: Mapping[str, Sequence[int]]) -> Iterator[dict[str, int]]:
    """Count in this thread, as ``client``, and in processes during the block.

    The dict holds the counts after it.
    """
    counts: dict[str, int] = {}
    for pids in roles.values():
        ask(folder, pids)
    tracing.take()
    sys.settrace(tracing.trace)
    try:
        yield counts
    finally:
        sys.settrace(None)
    counts["client"] = tracing.take()
    counts |= {role: ask(folder, pids) for role, pids in roles.items()}
