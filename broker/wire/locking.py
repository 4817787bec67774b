"""Lock files that tell who holds them. An IO shell.

A lock belongs to the open file: a process that inherits the descriptor holds it on, and the kernel
lets go of it when the last one is closed, however its holders ended.

Mirror: tests/broker/wire/test_locking.py.
"""

import fcntl
import os
from pathlib import Path


class LockHeldError(Exception):
    """Another process holds the lock; `holder` is its id as text, or ``unknown``."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by process {holder}")
        self.holder = holder


def take_lock(path: Path) -> int:
    """Take a lock file, which holds our process id from now on; returns its descriptor.

    Raises:
        LockHeldError: Another process holds it.
        OSError: It can't be made, as when its folder is gone.
    """
    while True:
        # No links: somebody may have put one to a file of ours where others may write.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_there(path, descriptor):
                break
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise LockHeldError(holder) from None
        os.close(descriptor)  # its last holder removed it meanwhile
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
