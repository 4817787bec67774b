"""Starting, watching and ending processes on Linux. An IO shell without state of its own.

Mirror: tests/broker/test_processes.py.
"""

import os
import signal
import sys
from collections.abc import Sequence


def spawn_module(module: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Exec ``python -m module arguments`` in a new process and return its id.

    Args:
        module: Name of the module to run as a program.
        arguments: Its arguments.
        descriptors: Descriptors it inherits under the same numbers; standard ones always.
    """
    # -P keeps the current folder off sys.path: a user's file must not stand in for our imports.
    command = [sys.executable, "-P", "-m", module, *arguments]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(sys.executable, command, os.environ)
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)


def reap(pid: int) -> str:
    """Wait for a child that has ended and say how, such as ``signal 9 (SIGKILL)``."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"signal {number}"
    return f"exit status {os.WEXITSTATUS(status)}"


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child that was not reaped yet; one that has ended does not mind."""
    os.kill(pid, number)


def children() -> list[int]:
    """List the ids of this process's children, ended ones included."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(pid) for pid in listing.read().split()]


def use_cpus(cpus: Sequence[int]) -> None:
    """Restrict this process and those it starts to some CPUs; no change when there are none.

    Raises:
        OSError: None of them exists.
    """
    if cpus:
        os.sched_setaffinity(0, cpus)
