"""Pyro5, a remote-object library: one proxy, one daemon in another process, over a Unix socket.

For people who know it; it has no budget. Optional: `AVAILABLE` says whether it is installed.
Left out: its worker pools, for one client needs one thread of the daemon. Serializer: its
default, serpent.

Mirror: tests/bench/floors/test_pyro.py.
"""

import contextlib
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..children import die_with_parent, running, say_ready
from ..timing import Measure, time_each
from .functions import add

AVAILABLE = importlib.util.find_spec("Pyro5") is not None
_OBJECT = "nodes"


@contextlib.contextmanager
def round_trip() -> Iterator[Measure]:
    """``proxy.add(1, 2)``, one after the other."""
    api = importlib.import_module("Pyro5.api")
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        path = str(Path(folder) / "pyro")
        with running("pronghorn.bench.floors.pyro", path):
            proxy = api.Proxy(f"PYRO:{_OBJECT}@./u:{path}")
            with proxy:
                yield lambda calls: time_each(lambda: proxy.add(1, 2), 3, calls)


def main() -> None:
    """Serve `add` on the Unix socket given, until killed."""
    die_with_parent()
    api = importlib.import_module("Pyro5.api")

    class Nodes:
        @staticmethod
        def add(a: int, b: int) -> int:
            return add(a, b)

    daemon = api.Daemon(unixsocket=sys.argv[1])
    daemon.register(api.expose(Nodes), _OBJECT)
    say_ready()
    daemon.requestLoop()


if __name__ == "__main__":
    main()
