"""Waiting for a file to appear without looking again and again: inotify, by ctypes.

Mirror: tests/bench/test_inotify.py.
"""

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

_CREATED, _MOVED_IN = 0x100, 0x80
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_EVENTS_BYTES = 64 * 1024


class ChildGoneError(RuntimeError):
    """The process that should have made the file has ended."""


class Watch:
    """A watch on one folder; to be made before the file may appear."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait_for(self, name: str, *, maker: int, timeout_s: float) -> None:
        """Block until a file of that name appears; each event restarts the time.

        Args:
            name: Name of the file within the folder.
            maker: Pid of the child that should make it; its end ends the wait.
            timeout_s: Longest time without an event.
        """
        while True:
            ready = _first_ready(self._fd, maker, timeout_s)
            if not ready:
                raise TimeoutError(f"no {name} within {timeout_s:.0f} s")
            if self._fd not in ready:
                raise ChildGoneError(f"process {maker} ended without making {name}")
            if name in _names(os.read(self._fd, _EVENTS_BYTES)):
                return


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    """Watch a folder for new files until the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        if libc.inotify_add_watch(fd, os.fsencode(folder), _CREATED | _MOVED_IN) < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {folder}")
        yield Watch(fd)
    finally:
        os.close(fd)


def _first_ready(fd: int, child: int, timeout_s: float) -> list[int]:
    pidfd = os.pidfd_open(child)
    try:
        return select.select([fd, pidfd], [], [], timeout_s)[0]
    finally:
        os.close(pidfd)


def _names(events: bytes) -> list[str]:
    names = []
    position = 0
    while position < len(events):
        length = _HEADER.unpack_from(events, position)[3]
        position += _HEADER.size
        names.append(os.fsdecode(events[position : position + length].rstrip(b"\0")))
        position += length
    return names
