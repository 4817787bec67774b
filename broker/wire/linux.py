"""What both sides ask of the Linux kernel about parents and children.

Mirror: tests/broker/wire/test_linux.py.
"""

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def require_linux() -> None:
    """Refuse to go on where pidfd, prctl and memfd do not exist.

    Raises:
        ImportError: This is not Linux; clients work everywhere.
    """
    if sys.platform != "linux":
        raise ImportError(
            f"Pronghorn's server side needs Linux, this is {sys.platform}; clients work everywhere"
        )


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends.

    To be called when the parent is final, for the kernel also sends the signal when an intermediate
    parent ends; and it means the parent's *thread*, which for the supervisor is its only one.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the call
        os._exit(1)


def wait_until_adopted(parent_pid: int) -> None:
    """Wait until this process's first parent has ended and `parent_pid` is its parent."""
    first = os.getppid()
    if first == parent_pid:
        return
    try:
        pidfd = os.pidfd_open(first)
    except ProcessLookupError:  # it has ended and was reaped
        return
    # The kernel gives its children away before it makes the pidfd readable.
    select.select([pidfd], [], [])
    os.close(pidfd)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
