"""Counters in the processes of a pool: code of ours that runs in each Python process at its start.

It is brought in as ``sitecustomize``, so that nothing of the product knows of it. Such a module
(`tracing`, `tapping`) imports nothing of Pronghorn, since it is there before anything else; it has
`FOLDER`, the environment's name for the folder of its FIFOs, and `begin`. On SIGURG, which nobody
else uses, it writes what it has counted since the last time to the FIFO of its process. A fork goes
on counting.

Mirror: tests/bench/test_injected.py.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest.mock import patch


@contextlib.contextmanager
def counting_children(module: ModuleType) -> Iterator[Path]:
    """Count in all Python processes that are started in this block; gives the folder for `ask`."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as name:
        folder = Path(name)
        site = f'import runpy\nrunpy.run_path({module.__file__!r})["begin"]()\n'
        (folder / "sitecustomize.py").write_text(site)
        path = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")]))
        with patch.dict(os.environ, {"PYTHONPATH": path, module.FOLDER: name}):
            yield folder


def ask(folder: Path, pids: Sequence[int]) -> int:
    """Return what processes have counted since they were asked last."""
    return sum(_ask(folder / str(pid), pid) for pid in pids)


def _ask(fifo: Path, pid: int) -> int:
    if not fifo.exists():
        os.mkfifo(fifo)
    os.kill(pid, signal.SIGURG)
    return int(fifo.read_text())
