"""The folder of a store: whose it is, who holds it, how much room there is. An IO shell.

::

    DIR/lock       held by the one process that writes; has its id
    DIR/data.mdb   the store            DIR/lock.mdb   LMDB's table of readers
    DIR/wal        what was kept since the store's last commit
    DIR/ballast    room to end what is open when the disk is full

Mirror: tests/broker/journal/test_place.py.
"""

import errno
import os
import stat
import time
from pathlib import Path
from struct import Struct as Layout
from typing import Final, Self

from ..wire.limits import MIB
from ..wire.locking import LockHeldError, take_lock
from .errors import UnusableStoreError

LOCK_NAME: Final = "lock"
DATA_NAME: Final = "data.mdb"
READERS_NAME: Final = "lock.mdb"
BALLAST_NAME: Final = "ballast"
WAL_NAME: Final = "wal"
NEW_WAL_NAME: Final = "wal.new"  # while it is made; left by a start that was cut off
COMPACTED_NAME: Final = "compacted.mdb"
CREATING_NAME: Final = "creating"
OUR_NAMES: Final = frozenset(
    {
        LOCK_NAME,
        DATA_NAME,
        READERS_NAME,
        BALLAST_NAME,
        WAL_NAME,
        NEW_WAL_NAME,
        COMPACTED_NAME,
        CREATING_NAME,
    }
)

BALLAST_BYTES_MAX: Final = 64 * MIB
BALLAST_SHARE: Final = 1 / 16
FLOOR_BYTES_MAX: Final = 1024 * MIB
FLOOR_SHARE: Final = 1 / 20
"""Shares of the disk, so that a small one can be used; at most so much, so that a large one can."""

LOOK_S: Final = 0.02
"""Between two looks at a folder that somebody has, who will let go of it or write to it soon."""

_META: Final = Layout("=II")  # magic, version of LMDB's data format
_MAGIC: Final = 0xBEEFC0DE
_START_BYTES: Final = 64  # of the file; somewhere in them, by version, is what tells it
_DATA_VERSION: Final = 1  # of LMDB 0.9


class DataFolder:
    """The folder of a store, held by this process: nobody else writes to it meanwhile."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def hold(cls, path: Path, *, patience_s: float = 0.0) -> Self:
        """Make a folder if it is not there, and take its lock.

        Args:
            path: The folder.
            patience_s: How long to wait for who has it now.

        Raises:
            UnusableStoreError: Somebody else has it, or it can't be a store's.
        """
        try:
            _make_folder(path)
            check_ours(path)  # first: nobody should have to open up a folder that is refused then
            _check_private(path)
            end = time.monotonic() + patience_s
            while True:
                try:
                    return cls(path, take_lock(path / LOCK_NAME))
                except LockHeldError:
                    if time.monotonic() >= end:
                        raise
                time.sleep(LOOK_S)
        except LockHeldError as held:
            raise UnusableStoreError(
                f"the journal in {path} is in use by process {held.holder}: "
                "stop it, or choose another folder"
            ) from None
        except OSError as error:
            raise UnusableStoreError(
                f"can't use {path} for a journal: {error.strerror}: make it a folder that can be "
                "written to, or choose another"
            ) from error

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def make_ballast(self, size: int) -> bool:
        """Reserve room, unless it is reserved already; `False` if there is none."""
        if self.ballast_bytes >= size:
            return True
        try:
            descriptor = os.open(
                self.path / BALLAST_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError:
            self.drop_ballast()
            return False
        return True

    def drop_ballast(self) -> bool:
        """Give the reserved room back to the disk; `False` if none was reserved."""
        try:
            (self.path / BALLAST_NAME).unlink()
        except OSError:
            return False
        return True

    @property
    def ballast_bytes(self) -> int:
        """Room that is reserved now."""
        try:
            return (self.path / BALLAST_NAME).stat().st_size
        except OSError:
            return 0

    @property
    def free_bytes(self) -> int:
        """Room on the disk for this user."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def default_sizes(self) -> tuple[int, int]:
        """Return how much to reserve as ballast, and how much should be free besides."""
        disk = os.statvfs(self.path)
        size = disk.f_blocks * disk.f_frsize
        return (
            min(BALLAST_BYTES_MAX, int(size * BALLAST_SHARE)),
            min(FLOOR_BYTES_MAX, int(size * FLOOR_SHARE)),
        )


def has_store(path: Path) -> bool:
    """Whether a folder has a store in it.

    Raises:
        UnusableStoreError: It can't be looked at.
    """
    try:
        return (path / DATA_NAME).stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UnusableStoreError(f"can't look into {path}: {error.strerror}") from error


def check_ours(path: Path) -> None:
    """Refuse a folder or data file that is somebody else's, without opening it.

    Raises:
        UnusableStoreError: It is.
        OSError: It can't be read.
    """
    if not has_store(path):
        foreign = sorted({each.name for each in path.iterdir()} - OUR_NAMES)
        if foreign:
            raise UnusableStoreError(
                f"{path} holds no journal but {foreign[0]}: choose another folder"
            )
        return
    version = _data_version(path / DATA_NAME)
    if version is None:
        raise UnusableStoreError(f"{path / DATA_NAME} is no journal: choose another folder")
    if version != _DATA_VERSION:
        raise UnusableStoreError(
            f"{path / DATA_NAME} is of LMDB's data format {version}, "
            f"made by something newer: only {_DATA_VERSION} is known, choose another folder"
        )


def _data_version(path: Path) -> int | None:
    """Return which data format of LMDB a file is of; `None` if it is of none."""
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
    for position in range(0, len(start) - _META.size + 1, 4):
        magic, version = _META.unpack_from(start, position)
        if magic == _MAGIC:
            return int(version)
    return None


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a loss of power.

    Raises:
        OSError: It can't be done.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(path: Path) -> None:
    """Make a folder that only its user can enter, unless it is there."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        sync_folder(path.parent)


def _check_private(path: Path) -> None:
    """Refuse a folder that somebody else has made or may enter.

    Raises:
        UnusableStoreError: It is such a one.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise UnusableStoreError(
            f"{path} belongs to user {status.st_uid}, not to this one: choose another folder"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UnusableStoreError(f"{path} is open to other users: chmod 700 {path}")
