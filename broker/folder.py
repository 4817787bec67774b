"""The runtime folder of one broker: made, locked, removed. An IO shell.

The lock is what keeps two brokers apart: a second bind to an ipc path succeeds and steals the
clients (libzmq unlinks the file first), so nothing is bound before the lock is held.

Mirror: tests/broker/test_folder.py.
"""

import fcntl
import os
import shutil
import stat
from pathlib import Path

from .wire.errors import InvalidArgumentError

LOCK_NAME = "lock"


class RuntimeFolder:
    """A locked runtime folder, private to its user (0700), which is what protects the socket."""

    def __init__(self, path: Path) -> None:
        """Make and lock the folder, and the lock files of further ipc endpoints.

        Raises:
            InvalidArgumentError: It belongs to somebody else, or another broker holds it.
        """
        self.path = path
        self._locks: list[tuple[Path, int]] = []
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            _check_private(path)
        except OSError as error:
            raise InvalidArgumentError(f"can't use the runtime folder {path}: {error}") from error
        self.lock(path / LOCK_NAME)

    def lock(self, path: Path) -> None:
        """Take a lock file, which holds our process id from now on.

        Raises:
            InvalidArgumentError: Another process holds it.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidArgumentError(f"can't make the lock file {path}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise InvalidArgumentError(
                f"another broker (pid {holder}) serves in {path.parent}: "
                "stop it, or choose another --name"
            ) from None
        if not _is_still_there(path, descriptor):  # its last holder removed it meanwhile
            os.close(descriptor)
            self.lock(path)
            return
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._locks.append((path, descriptor))

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the folder and of lock files outside of it: all that `remove` removes."""
        return (str(self.path), *(str(path) for path, _ in self._locks[1:]))

    def remove(self) -> None:
        """Remove the folder and all lock files, then let go of the locks."""
        for path, _ in self._locks:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        for _, descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()


def remove_stale(root: Path, prefix: str) -> None:
    """Remove folders below `root` whose names begin so and whose owners are gone.

    They are left when a whole tree was killed at once, host included.
    """
    for path in root.glob(f"{prefix}*"):
        try:
            folder = RuntimeFolder(path)
        except InvalidArgumentError:
            continue  # in use
        folder.remove()


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _check_private(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidArgumentError(f"{path} is no folder")
    if status.st_uid != os.getuid():
        raise InvalidArgumentError(f"{path} belongs to user {status.st_uid}, not to this one")
    if status.st_mode & 0o077:
        raise InvalidArgumentError(f"{path} is open to other users: chmod 700 {path}")
