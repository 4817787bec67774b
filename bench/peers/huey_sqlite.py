"""huey on SQLite, polls as they come. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..floors.functions import add
from .measuring import Peer

_FILE = "PRONGHORN_BENCH_HUEY"


def application() -> tuple[Any, Any]:
    """Make the queue that client and consumer share; gives it and its task."""
    library = importlib.import_module("huey")
    made = library.SqliteHuey("peer", filename=os.environ[_FILE])
    return made, made.task(name="add")(add)


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """A consumer with two worker processes."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        os.environ[_FILE] = str(Path(folder) / "huey.sqlite")
        _, task = application()
        consumer = subprocess.Popen(
            [sys.executable, "-P", "-m", "pronghorn.bench.peers.huey_sqlite"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def burst(count: int) -> list[int]:
            results = [task(index, 1) for index in range(count)]
            return [result.get(blocking=True, timeout=60) for result in results]

        try:
            task(1, 2).get(blocking=True, timeout=60)
            yield Peer(lambda: task(1, 2).get(blocking=True, timeout=60), burst)
        finally:
            consumer.terminate()
            consumer.wait()


def main() -> None:
    """Run the consumer."""
    made, _ = application()
    made.create_consumer(workers=2, worker_type="process", periodic=False).run()


if __name__ == "__main__":
    main()
