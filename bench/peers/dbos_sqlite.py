"""DBOS on SQLite: a durable workflow of one step. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..floors.functions import add
from .measuring import Peer


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """It runs in the program itself, and keeps workflow and step in a file."""
    library = importlib.import_module("dbos")
    dbos = library.DBOS
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        database = f"sqlite:///{Path(folder) / 'peer.sqlite'}"
        dbos(
            config={
                "name": "peer",
                "system_database_url": database,
                "run_admin_server": False,
                "log_level": "ERROR",
            }
        )
        step = dbos.step()(add)

        @dbos.workflow()  # type: ignore[untyped-decorator]  # of a library that may not be there
        def flow(a: int, b: int) -> int:
            value: int = step(a, b)
            return value

        dbos.launch()

        def burst(count: int) -> list[int]:
            handles = [dbos.start_workflow(flow, index, 1) for index in range(count)]
            return [handle.get_result() for handle in handles]

        try:
            yield Peer(lambda: flow(1, 2), burst)
        finally:
            dbos.destroy()
