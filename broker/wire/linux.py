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
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


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


def wait_until_adopted(first: int) -> None:
    """Wait until the process that has forked this one has ended, so that it has its final parent.

    Who that is remains to be seen: the one that should adopt it may have ended before.
    """
    if os.getppid() != first:
        return
    try:
        pidfd = os.pidfd_open(first)
    except ProcessLookupError:  # it has ended and was reaped
        return
    # The kernel gives its children away before it makes the pidfd readable.
    select.select([pidfd], [], [])
    os.close(pidfd)


def forbid_new_privileges() -> None:
    """Have no program that this process starts get more rights than it has, as by setuid."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def leave_network() -> None:
    """Be without a network from now on, loopback included; Unix sockets by path still work.

    A process without the right to do that gets it in a user namespace of its own, in which it has
    the ids that it had. It must not have threads then.

    Raises:
        OSError: The system does not let it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"can't be without a network: {os.strerror(number)}")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def can_leave_network() -> bool:
    """Try out `leave_network` in a child; to be asked in a process without threads."""
    child = os.fork()
    if child == 0:
        try:
            # Who has become another user may not write to its own files in /proc until it has
            # started another program, as workers have.
            _prctl(_PR_SET_DUMPABLE, 1)
            leave_network()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
