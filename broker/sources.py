"""Sees changes of the files that nodes were imported from: inotify, by ctypes. An IO shell.

Folders are watched, not files: an editor puts a new file in the place of the old one.

Mirror: tests/broker/test_sources.py.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct as Layout

_CLOSED_AFTER_WRITE, _MOVED_FROM, _MOVED_TO, _DELETED = 0x8, 0x40, 0x80, 0x200
_MASK = _CLOSED_AFTER_WRITE | _MOVED_FROM | _MOVED_TO | _DELETED
_OVERFLOW = 0x4000  # the kernel has dropped events
_EVENT = Layout("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class SourceWatch:
    """Files whose changes are seen. Owns its descriptor.

    Raises:
        OSError: The system lacks what it takes.
    """

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        self._folders: dict[int, str] = {}  # watch -> folder
        self._files: frozenset[str] = frozenset()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._fd

    def watch(self, files: Iterable[str]) -> None:
        """See changes of these files from now on, beside those that were to be seen before.

        A file that is gone may come back.

        Raises:
            OSError: The system lacks what it takes; what was watched before still is.
        """
        self._files |= frozenset(files)
        known = set(self._folders.values())
        for folder in {str(Path(file).parent) for file in self._files} - known:
            if os.path.isdir(folder):
                added = _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
                self._folders[_checked(added, f"inotify_add_watch {folder}")] = folder

    def have_changed(self) -> bool:
        """Take in what has happened; whether a file was written, replaced or removed."""
        changed = False
        while True:
            try:
                events = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return changed
            for watch, mask, name in _parsed(events):
                path = os.path.join(self._folders.get(watch, ""), name)
                changed = changed or bool(mask & _OVERFLOW) or path in self._files

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


def _parsed(events: bytes) -> Iterator[tuple[int, int, str]]:
    """Give watch, mask and name of each event."""
    position = 0
    while position < len(events):
        watch, mask, _, length = _EVENT.unpack_from(events, position)
        position += _EVENT.size
        yield watch, mask, os.fsdecode(events[position : position + length].rstrip(b"\0"))
        position += length


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
