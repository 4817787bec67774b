"""The runtime folder of one broker: made, locked, removed. An IO shell.

The lock is what keeps two brokers apart: a second bind to an ipc path succeeds and steals the
clients (libzmq unlinks the file first), so nothing is bound before the lock is held. A lock belongs
to the open file, so a broker that inherits the descriptor holds it on when its supervisor is
killed, until it has removed the files; and the kernel lets go of it when both are gone.

Mirror: tests/broker/test_folder.py.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .wire.errors import InvalidArgumentError
from .wire.locking import LockHeldError, take_lock
from .wire.places import STREAM_SUFFIX, shared_root
from .wire.references import owner_prefix

LOCK_NAME = "lock"

_ATTEMPTS = 100  # to make and lock a folder that others remove at the same time


class RuntimeFolder:
    """A locked runtime folder, private to its user (0700), which is what protects the socket."""

    def __init__(self, path: Path) -> None:
        """Make and lock the folder.

        Raises:
            InvalidArgumentError: It belongs to somebody else, or another broker holds it.
        """
        self.path = path
        # Of ipc endpoints outside of the folder, those of the streams beside them included.
        self._sockets: list[Path] = []
        self._locks: list[tuple[Path, int]] = []  # lock files and their descriptors, own one first
        for attempt in range(_ATTEMPTS):
            try:
                _make_private(path.parent, parents=True)
                _make_private(path)
                self._lock(path / LOCK_NAME)
                return
            except FileNotFoundError as error:  # its last holder has just removed it, or the root
                if attempt == _ATTEMPTS - 1:
                    raise _unusable(path, error) from error
            except OSError as error:
                raise _unusable(path, error) from error

    def claim_socket(self, path: Path) -> None:
        """Lock the path of an endpoint's socket outside of the folder, by a lock file beside it.

        Raises:
            InvalidArgumentError: Another broker holds it, or no file can be made there.
        """
        try:
            self._lock(path.with_name(f"{path.name}.lock"))
        except OSError as error:
            raise InvalidArgumentError(f"can't make the lock file of {path}: {error}") from error
        self._sockets += [path, path.with_name(path.name + STREAM_SUFFIX)]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors of the lock files, for the process that shall hold the locks too."""
        return tuple(descriptor for _, descriptor in self._locks)

    @property
    def files(self) -> tuple[str, ...]:
        """All that `remove` removes: as `remove_files` takes it."""
        locks = (path for path, _ in self._locks[1:])
        return tuple(str(path) for path in (*self._sockets, *locks, self.path))

    def remove(self) -> None:
        """Remove the folder and all other files, then let go of the locks."""
        remove_files(self.files)
        for _, descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()

    def _lock(self, path: Path) -> None:
        """Take a lock file, which holds our process id from now on.

        Raises:
            InvalidArgumentError: Another process holds it.
            OSError: It can't be made, as when its folder is gone.
        """
        try:
            descriptor = take_lock(path)
        except LockHeldError as held:
            raise InvalidArgumentError(
                f"another broker (pid {held.holder}) serves in {path.parent}: "
                "stop it, or choose another --name"
            ) from None
        self._locks.append((path, descriptor))


def remove_files(paths: Iterable[str]) -> None:
    """Remove files and runtime folders; what is not there or can't be removed is passed over.

    A folder's lock file goes last: as soon as it is gone another broker may take the folder over,
    and then the folder stays.
    """
    for each in paths:
        path = Path(each)
        with suppress(OSError):
            if not path.is_dir():
                path.unlink()
                continue
            for inner in path.iterdir():
                if inner.is_dir() and not inner.is_symlink():
                    shutil.rmtree(inner, ignore_errors=True)
                elif inner.name != LOCK_NAME:
                    inner.unlink(missing_ok=True)
            (path / LOCK_NAME).unlink(missing_ok=True)
            path.rmdir()


def remove_owned(folder: str, owner: int) -> None:
    """Remove the files of large values that a process has written and that has ended."""
    prefix = owner_prefix(owner)
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix):
                os.unlink(f"{folder}/{name}")


def make_shared(runtime: RuntimeFolder) -> tuple[RuntimeFolder | None, str]:
    """Make a folder for the large values of this process's tree; gives its path too.

    It is in memory, and a locked one, if that can be had; else it is below the runtime folder and
    goes with that. Without any its path is empty, and values go without it.
    """
    root = shared_root()
    with suppress(InvalidArgumentError):  # somebody else has taken its place, or there is no room
        if root is not None:
            made = RuntimeFolder(root / f"{os.getpid()}-{secrets.token_hex(4)}")
            return made, str(made.path)
    try:
        _make_private(path := runtime.path / "shared")
    except (OSError, InvalidArgumentError):
        return None, ""
    return None, str(path)


def remove_stale(root: Path, prefix: str) -> None:
    """Remove folders below `root` named prefix, process id, hyphen, whatever, of ended processes.

    They are left when a whole tree was killed at once, host included. Another process may have got
    the id since, as in a container that is started again; so a folder whose process lives is taken
    for such a one too, if it has been locked before.
    """
    try:
        paths = list(root.glob(f"{prefix}*-*"))
    except OSError:  # it can't be listed for want of something: the next tree does it
        return
    for path in paths:
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if not pid.isdecimal():
            continue
        if os.path.exists(f"/proc/{pid}") and not _was_locked(path):
            continue  # it is just being made
        with suppress(InvalidArgumentError):  # in use
            RuntimeFolder(path).remove()


def _was_locked(folder: Path) -> bool:
    """Whether somebody has locked a folder, who may hold it still."""
    try:
        return (folder / LOCK_NAME).stat().st_size > 0
    except OSError:
        return False


def _make_private(path: Path, *, parents: bool = False) -> None:
    """Make a folder that only its user can enter; one that is there has to be such a one.

    Raises:
        InvalidArgumentError: It is not private.
        FileNotFoundError: It has just been removed again, or the folder that it is to be in.
        OSError: It can't be made.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=parents)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidArgumentError(f"{path} is no folder")
    if status.st_uid != os.getuid():
        raise InvalidArgumentError(f"{path} belongs to user {status.st_uid}, not to this one")
    if status.st_mode & 0o077:
        raise InvalidArgumentError(f"{path} is open to other users: chmod 700 {path}")


def _unusable(path: Path, error: OSError) -> InvalidArgumentError:
    return InvalidArgumentError(f"can't use the runtime folder {path}: {error}")
