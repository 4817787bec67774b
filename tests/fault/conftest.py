"""For all tests of faults: a place for runtime folders in which nothing may be left."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from trees import FAULTY, Fifo, Running

from pronghorn.client import Pool


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder that holds the runtime folders; fail when something stays in it."""
    base = Path(tempfile.mkdtemp(dir="/tmp"))  # short, for a socket's path has 107 bytes at most
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    root = base / "pronghorn"
    yield root
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    shutil.rmtree(base)
    assert left == [], "files are left behind"


@pytest.fixture
def start(runtime: Path) -> Iterator[Callable[..., Running]]:
    """Start pools of faulty nodes, closed at the end of the test."""
    with ExitStack() as stack:

        def start_pool(*modules: str, workers: int = 1, **options: Any) -> Running:
            pool = Pool(*(modules or (FAULTY,)), workers=workers, **options)
            return Running(stack.enter_context(pool))

        yield start_pool


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Give a named pipe for nodes to say that they have begun."""
    pipe = Fifo(tmp_path / "fifo")
    yield pipe
    pipe.close()
