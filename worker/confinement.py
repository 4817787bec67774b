"""What a worker may take of its host: memory, CPU time, files, network. An IO shell.

It bounds mistakes and takes something from attackers; it is no sandbox: a node still has the files
and the rights of its user.

Mirror: tests/worker/test_confinement.py.
"""

import resource

from pronghorn.broker.wire.control import Confinement
from pronghorn.broker.wire.linux import leave_network

_CPU_GRACE_S = 1  # between SIGXCPU, which a node may catch, and SIGKILL


def confine(confinement: Confinement) -> None:
    """Confine this process, and what it will start, for good; to be called before users' code.

    Before `die_with_parent` too, which it would undo: the kernel forgets it when rights change.

    Raises:
        OSError: The system does not let it.
    """
    if confinement.memory_bytes:
        # What is its own and writable: a bound on all addresses would count the maps of files, of
        # which LMDB and numpy have large ones that take no memory.
        _limit(resource.RLIMIT_DATA, confinement.memory_bytes)
    if confinement.files:
        _limit(resource.RLIMIT_NOFILE, confinement.files)
    if confinement.cpu_s:
        _limit(resource.RLIMIT_CPU, confinement.cpu_s, confinement.cpu_s + _CPU_GRACE_S)
    if not confinement.network:
        leave_network()


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit; one that is lower already stays."""
    wanted = soft if hard is None else hard
    _, before = resource.getrlimit(kind)
    if before != resource.RLIM_INFINITY:
        wanted = min(wanted, before)
    resource.setrlimit(kind, (min(soft, wanted), wanted))
