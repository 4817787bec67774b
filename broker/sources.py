"""Sees changes of files, those that nodes were imported from and keys: inotify. An IO shell.

Folders are watched, not files: an editor puts a new file in the place of the old one.

Mirror: tests/broker/test_sources.py.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct as Layout

_CLOSED_AFTER_WRITE, _MOVED_FROM, _MOVED_TO, _DELETED = 0x8, 0x40, 0x80, 0x200
_ATTRIBUTES, _CREATED, _DELETED_SELF = 0x4, 0x100, 0x400
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


class FolderWatch:
    """Folders in which any change is seen. Owns its descriptor.

    Args:
        folders: Their paths; one that is not there is seen when it is made in another of them.

    Raises:
        OSError: The system lacks what it takes.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        self._folders = tuple(folders)
        self._add()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._fd

    def take(self) -> None:
        """Take in what has happened, so that the descriptor tells of what happens from now on."""
        with suppress(BlockingIOError):
            while os.read(self._fd, _READ_BYTES):
                pass
        self._add()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _add(self) -> None:
        mask = _MASK | _ATTRIBUTES | _CREATED | _DELETED_SELF
        for folder in self._folders:  # one that is watched already stays as it is
            if folder.is_dir():
                _checked(
                    _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask),
                    f"inotify_add_watch {folder}",
                )


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
