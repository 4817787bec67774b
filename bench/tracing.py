"""Counts the bytecodes that a process runs in its main thread. Run in it by injected.py.

Mirror: tests/bench/test_bytecodes.py.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

FOLDER = "PRONGHORN_BENCH_BYTECODES"

_count = 0


def trace(frame: FrameType, event: str, argument: object) -> Any:
    """Count a bytecode; goes to `sys.settrace`."""
    global _count
    frame.f_trace_opcodes, frame.f_trace_lines = True, False
    if event == "opcode":
        _count += 1
    return trace


def take() -> int:
    """Return how many there were since the last time."""
    global _count
    count, _count = _count, 0
    return count


def _tell(signum: int, frame: FrameType | None) -> None:
    sys.settrace(None)
    with open(os.path.join(os.environ[FOLDER], str(os.getpid())), "w") as fifo:
        fifo.write(str(take()))
    sys.settrace(trace)


def begin() -> None:
    """Count from now on, in this process and in those that it forks."""
    signal.signal(signal.SIGURG, _tell)
    sys.settrace(trace)
