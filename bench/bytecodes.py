"""Bytecodes per call: what our own code does for a call, whatever else the machine does.

Python's tracing counts them in broker, worker and client. That makes calls thirty times slower, but
the count is the same on a quiet and on a busy machine, to a hundredth: a change that adds work to
each call shows here long before it shows in times. What is done in C counts as one.

Mirror: tests/bench/test_bytecodes.py.
"""

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from . import tracing

_SITE = f"""\
import runpy
runpy.run_path({tracing.__file__!r})["begin"]()
"""


@contextlib.contextmanager
def traced_children() -> Iterator[Path]:
    """Count in all Python processes that are started in this block; gives the folder for `ask`."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(_SITE)
        path = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")]))
        with patch.dict(os.environ, {"PYTHONPATH": path, tracing.FOLDER: name}):
            yield folder


def ask(folder: Path, pids: Sequence[int]) -> int:
    """Return how many bytecodes traced processes have run since they were asked last."""
    return sum(_ask(folder / str(pid), pid) for pid in pids)


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


def _ask(fifo: Path, pid: int) -> int:
    if not fifo.exists():
        os.mkfifo(fifo)
    os.kill(pid, signal.SIGURG)
    return int(fifo.read_text())
