"""What is done to a store by hand: copies, compaction, removal of runs.

Mirror: tests/broker/journal/test_upkeep.py.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ..wire.errors import NotFoundError
from ..wire.version import SERVER_NAME
from .errors import DamageError, NoSpaceError, UnusableStoreError
from .fold import RunState
from .ledger import Ledger, Retention
from .place import (
    COMPACTED_NAME,
    DATA_NAME,
    LOOK_S,
    READERS_NAME,
    WAL_NAME,
    DataFolder,
    has_store,
    sync_folder,
)
from .reading import check_format, read_counts
from .store import Store
from .wal import read_wal, recover

CATCH_UP_S: Final = 1.0
"""How long a writer that is at work is waited for; it is behind by less than a tenth of that."""


class Sizes(NamedTuple):
    """Bytes of the file before and after."""

    before: int
    after: int


def require_store(path: Path) -> None:
    """Refuse a folder in which there is no store.

    Raises:
        NotFoundError: There is none.
        UnusableStoreError: It can't be looked at.
    """
    if not has_store(path):
        raise NotFoundError(f"there is no journal in {path}: say where it is by --data or --name")


def catch_up(path: Path) -> int:
    """Have the store take in what is only in its log, or wait until its writer has done so.

    Returns:
        How many records it still lacks, 0 as a rule: nobody can write to it, or its writer can't.

    Raises:
        UnusableStoreError: It can't be read.
        DamageError: It is damaged, or its log is.
    """
    end = time.monotonic() + CATCH_UP_S
    kept = wanted = 0
    while True:
        is_late = time.monotonic() > end
        try:
            kept, logged = _ends(path)
            wanted = wanted or logged  # what is logged meanwhile is not waited for
            if kept >= wanted:
                return 0
        except DamageError:  # or its writer is at work
            if is_late:
                raise
        try:
            with _ledger(path):
                return 0
        except NoSpaceError:
            return wanted - kept
        except UnusableStoreError:  # it is in use, or on a disk that can't be written to
            if is_late:
                return wanted - kept
        time.sleep(LOOK_S)


def _ends(path: Path) -> tuple[int, int]:
    """Return the number of the store's last record, and of the last one in its log."""
    store = Store.open_to_read(path)
    try:
        with store.view() as view:
            found, counts = check_format(view), read_counts(view)
    finally:
        store.close()
    if found is None:
        return 0, 0
    return counts.last, counts.last + read_wal(path, found.store_id, counts)[1]


def backup(path: Path, target: Path) -> int:
    """Copy the store as it is now into a new folder; returns the bytes of the copy.

    Raises:
        NotFoundError: There is no store.
        UnusableStoreError: It can't be read, or the copy can't be made there.
        DamageError: It is damaged, or its log is.
        NoSpaceError: There is no room in the copy for what only the log has.
        LostStoreError: The copy can't be written.
    """
    require_store(path)
    lacks = catch_up(path)
    try:
        target.mkdir(mode=0o700)
    except OSError as error:
        raise UnusableStoreError(f"can't make {target}: {error.strerror}") from error
    if lacks:  # the store can't take that in, so the copy does
        _copy_wal(path, target)
    _copy(path, target / DATA_NAME, compact=False)
    if lacks:
        with _opened(target):
            pass
        for name in (READERS_NAME, WAL_NAME):
            (target / name).unlink()
    sync_folder(target)
    sync_folder(target.absolute().parent)
    return (target / DATA_NAME).stat().st_size


def compact(path: Path) -> Sizes:
    """Rewrite the store without its free pages; nobody may write to it meanwhile.

    Raises:
        NotFoundError: There is no store.
        UnusableStoreError: It is in use, or can't be read.
        LostStoreError: The copy can't be written; the store is as it was.
    """
    require_store(path)
    folder = DataFolder.hold(path)
    try:
        copy = path / COMPACTED_NAME
        copy.unlink(missing_ok=True)
        with _opened(path):
            pass  # so that it has what is in its log
        _check_unread(path)
        before = (path / DATA_NAME).stat().st_size
        try:
            _copy(path, copy, compact=True)
            os.replace(copy, path / DATA_NAME)
        finally:
            copy.unlink(missing_ok=True)
        # The table of readers belongs to the file that it was made for.
        (path / READERS_NAME).unlink(missing_ok=True)
        sync_folder(path)
        return Sizes(before, (path / DATA_NAME).stat().st_size)
    finally:
        folder.close()


def remove_runs(path: Path, chosen: Callable[[RunState], bool]) -> int:
    """Remove the ended runs that are chosen; returns how many there were.

    Raises:
        NotFoundError: There is no store.
        UnusableStoreError: It is in use, or can't be used.
        JournalError: Something failed on the way; what was removed by then is gone.
    """
    require_store(path)
    removed, finished = 0, False
    with _ledger(path) as ledger:
        while not finished:
            runs, _, finished = ledger.prune(Retention(), time.time_ns(), chosen=chosen)
            removed += runs
    return removed


def _check_unread(path: Path) -> None:
    """Refuse to exchange the file under a reader, which would go on with its table of readers."""
    store = Store.open_to_read(path)
    try:
        readers = store.other_readers()
    finally:
        store.close()
    if readers:
        raise UnusableStoreError(
            f"the journal in {path} is being read by process {readers[0]}: try again later"
        )


@contextmanager
def _ledger(path: Path) -> Iterator[Ledger]:
    folder = DataFolder.hold(path)
    try:
        with _opened(path) as ledger:
            yield ledger
    finally:
        folder.close()


@contextmanager
def _opened(path: Path) -> Iterator[Ledger]:
    """Open the store in a folder that is held, with all that is in its log."""
    store = Store.open_to_write(path)
    try:
        now_ns = time.time_ns()
        ledger = Ledger(store, program=SERVER_NAME, store_id=os.urandom(16), now_ns=now_ns)
        recover(path, ledger)
        yield ledger
    finally:
        store.close()


def _copy_wal(path: Path, target: Path) -> None:
    """Copy the log into another folder: before the store, so that it has no gap behind that."""
    try:
        shutil.copyfile(path / WAL_NAME, target / WAL_NAME)
    except OSError as error:
        raise UnusableStoreError(f"can't copy {path / WAL_NAME}: {error.strerror}") from error


def _copy(path: Path, target: Path, *, compact: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    store = Store.open_to_read(path)
    try:
        descriptor = os.open(target, flags, 0o600)
        try:
            store.copy_to(descriptor, compact=compact)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnusableStoreError(f"can't write {target}: {error.strerror}") from error
    finally:
        store.close()
