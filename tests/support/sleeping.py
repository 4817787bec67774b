"""What the kernel tells of a process that waits for something."""

import platform
from pathlib import Path

import pytest

# machine -> the system call that Python's `select.poll` makes, and its timeout for "for ever"
_FOR_EVER = {"x86_64": ("7", 0xFFFF_FFFF), "aarch64": ("73", 0)}


def sleeps_for_ever(pid: int) -> bool:
    """Whether a process waits in a `poll` without timeout: then it does nothing until it has to."""
    call = _FOR_EVER.get(platform.machine())
    if call is None:
        pytest.skip("it is not known which system call waits here")
    try:
        state = Path(f"/proc/{pid}/syscall").read_text().split()
    except PermissionError:
        pytest.skip("other processes' system calls can't be seen here")
    return state[0] == call[0] and int(state[3], 16) & 0xFFFF_FFFF == call[1]


def sleeps_begun(pid: int) -> int:
    """How often a process has begun to wait for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
