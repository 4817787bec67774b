"""Pyro5 over a Unix socket; the daemon is that of floors/pyro.py.

Mirror: tests/bench/peers/test_peers.py.
"""

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..children import running
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """One daemon, one proxy; a proxy has one call under way."""
    api = importlib.import_module("Pyro5.api")
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        path = str(Path(folder) / "pyro")
        with (
            running("pronghorn.bench.floors.pyro", path),
            api.Proxy(f"PYRO:nodes@./u:{path}") as it,
        ):
            yield Peer(lambda: it.add(1, 2))
