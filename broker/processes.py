"""Starting, watching and ending processes on Linux. An IO shell without state of its own.

Mirror: tests/broker/test_processes.py.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from time import monotonic


def spawn_module(module: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Exec ``python -m module arguments`` in a new process and return its id.

    Args:
        module: Name of the module to run as a program.
        arguments: Its arguments.
        descriptors: Descriptors it inherits under the same numbers; standard ones always.

    Raises:
        OSError: The system lacks what it takes.
    """
    # -P keeps the current folder off sys.path: a user's file must not stand in for our imports.
    # With faulthandler whatever crashes, or is aborted because it hangs, writes its stack first.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", module, *arguments]
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


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory, what it shares included; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as sizes:
            return int(sizes.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def children() -> list[int]:
    """List the ids of this process's children, ended ones included."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(pid) for pid in listing.read().split()]


def end_children(seconds: float) -> None:
    """Kill and reap all children, and theirs as they become ours, until there are none.

    Only for a subreaper that has nothing else to do. What breeds faster than it is killed, or can't
    be killed, is given up after that time.
    """
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        pids = children()
        for pid in pids:
            kill(pid)
        for pid in pids:
            reap(pid)
        try:
            os.waitpid(-1, os.WNOHANG)  # the listing is not exact while children come and go
        except ChildProcessError:
            return


def use_cpus(cpus: Sequence[int]) -> None:
    """Restrict this process and those it starts to some CPUs; no change when there are none.

    Raises:
        OSError: None of them exists, or one can't be the number of a CPU.
    """
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except (ValueError, OverflowError) as error:
            raise OSError(str(error)) from error


def forbid_core_dumps() -> None:
    """Have nothing of this process's memory written to a file if it crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_all_descriptors() -> None:
    """Raise the soft limit of open descriptors, often 1024, to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
