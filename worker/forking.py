"""Looks for what does not survive a fork: threads, ZeroMQ sockets and open LMDB environments.

The template forks workers after it has imported users' modules, so a module that starts any of
these at import must be found and named. Only /proc is read: zmq and lmdb are not imported for it.

Mirror: tests/worker/test_forking.py.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

_TASKS: Final = Path("/proc/self/task")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_LMDB_FILES: Final = ("data.mdb", "lock.mdb", ".lmdb-lock", ".mdb-lock")
_ZMQ_THREADS: Final = (
    "ZMQbg/"  # libzmq names its threads so; a context has them with its first socket
)


class ForkHazards(msgspec.Struct, frozen=True):
    """What stands in the way of a fork at one moment.

    Attributes:
        threads: Thread id -> name, of all threads but the main one.
        lmdb_files: Paths of open LMDB files.
    """

    threads: dict[int, str]
    lmdb_files: frozenset[str]

    def since(self, earlier: "ForkHazards") -> tuple[str, ...]:
        """Say what has come up since then, one reason each, such as ``has started 2 threads``."""
        names = sorted(name for tid, name in self.threads.items() if tid not in earlier.threads)
        sockets = [name for name in names if name.startswith(_ZMQ_THREADS)]
        threads = [name for name in names if not name.startswith(_ZMQ_THREADS)]
        reasons = []
        if threads:
            plural = "s" if len(threads) > 1 else ""
            reasons.append(f"has started {len(threads)} thread{plural} ({', '.join(threads)})")
        if sockets:
            reasons.append("has opened ZeroMQ sockets")
        reasons += [
            f"has opened the LMDB file {path}"
            for path in sorted(self.lmdb_files - earlier.lmdb_files)
        ]
        return tuple(reasons)


def fork_hazards() -> ForkHazards:
    """Look at this process now; where there is no /proc nothing is forked either."""
    if not _TASKS.exists():
        return ForkHazards(threads={}, lmdb_files=frozenset())
    return ForkHazards(threads=_threads(), lmdb_files=_lmdb_files())


def _threads() -> dict[int, str]:
    threads: dict[int, str] = {}
    for task in _TASKS.iterdir():
        try:
            threads[int(task.name)] = (task / "comm").read_text().strip()
        except OSError:  # it has just ended
            continue
    threads.pop(os.getpid(), None)
    return threads


def _lmdb_files() -> frozenset[str]:
    paths = set()
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            path = os.readlink(descriptor)
        except OSError:  # the one this very listing was read through
            continue
        if path.endswith(_LMDB_FILES):
            paths.add(path)
    return frozenset(paths)
