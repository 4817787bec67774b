"""The store: tables in one LMDB file, read and changed in transactions. An IO shell.

The only module that knows LMDB. Everything about it is said at the one place where it is opened:
its default, synced flags always, for without them a loss of power can take the whole file and not
only the last commits; the data format of LMDB 0.9; a map of 64 GiB, which is address space and not
memory. What it raises becomes the few errors that something can be done about.

Whoever holds the folder's lock opens it for writing; anybody opens it for reading, meanwhile too.
Transactions must be short: pages that a reader still sees can't be used again.

Mirror: tests/broker/journal/test_store.py.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import lmdb
import lmdb.verify

from .errors import DamageError, LostStoreError, NoSpaceError, UnusableStoreError
from .place import CREATING_NAME, DATA_NAME, sync_folder
from .rows import Table, unsealed

MAP_BYTES: Final = 64 * 1024**3
_MAP_BYTES_MIN: Final = 64 * 1024**2
_READERS_MAX: Final = 126
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SPARE_BYTES: Final = 1024**2
"""With less room on the disk than that, a write that fails has failed for want of it: LMDB reports
a short write as an I/O error."""


class Put(NamedTuple):
    """A row to be written, as it is kept."""

    table: Table
    key: bytes
    sealed: bytes


class Puts(NamedTuple):
    """Many rows of one table, each its key and what is kept."""

    table: Table
    rows: list[tuple[bytes, bytes]]
    append: bool = False  # behind all others of the table, in order; quicker, and checked


class Delete(NamedTuple):
    """A row to be removed, which is there."""

    table: Table
    key: bytes


Change = Put | Puts | Delete


class View:
    """What a reading transaction sees: one state of all tables."""

    def __init__(self, transaction: "lmdb.Transaction[bytes]", tables: "_Databases") -> None:
        self._transaction = transaction
        self._tables = tables

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return what was sealed for a row; `None` if there is no such row.

        Raises:
            DamageError: It is not what was written.
        """
        sealed = self._transaction.get(key, db=self._tables[table])
        return None if sealed is None else unsealed(table, key, sealed)

    def walk(
        self, table: Table, start: bytes = b"", *, backwards: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Give keys and sealed rows in order, from `start` on, or from the row before it."""
        cursor = self._transaction.cursor(db=self._tables[table])
        if backwards:
            found = cursor.set_range(start) and cursor.prev() if start else cursor.last()
            if start and not found:
                # Either all rows are before it, or none is.
                found = cursor.last() and cursor.key() < start
            return cursor.iterprev() if found else iter(())
        found = cursor.set_range(start) if start else cursor.first()
        return cursor.iternext() if found else iter(())

    def count(self, table: Table) -> int:
        """Return how many rows a table says it has."""
        return self._transaction.stat(db=self._tables[table])["entries"]

    def used_bytes(self) -> int:
        """Return the bytes of the pages that are in use."""
        used = 0
        for database in self._tables.values():
            found = self._transaction.stat(db=database)
            pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
            used += pages * found["psize"]
        return used


_Databases = dict[Table, lmdb._Database]


class Store:
    """An open store. Not for the children of a process that opened it."""

    def __init__(self, environment: lmdb.Environment, tables: _Databases, path: Path) -> None:
        self._environment = environment
        self._tables = tables
        self._pid = os.getpid()
        self.path = path

    @classmethod
    def open_to_write(cls, path: Path, *, map_bytes: int = MAP_BYTES) -> Self:
        """Open or make the store in a folder whose lock this process holds.

        Raises:
            UnusableStoreError: It can't be opened.
        """
        if not (path / DATA_NAME).exists():
            _create(path)
        environment = _open(path, map_bytes=map_bytes, readonly=False)
        try:
            environment.reader_check()  # those that ended without a word
            return cls(environment, _tables(environment), path)
        except lmdb.Error as error:
            environment.close()
            raise UnusableStoreError(f"{path} holds no journal of ours: {error}") from error

    @classmethod
    def open_to_read(cls, path: Path) -> Self:
        """Open the store in a folder, whether or not a process writes to it.

        Raises:
            UnusableStoreError: There is none, or it can't be opened.
        """
        environment = _open(path, map_bytes=MAP_BYTES, readonly=True)
        try:
            return cls(environment, _tables(environment), path)
        except lmdb.Error as error:
            environment.close()
            raise UnusableStoreError(f"{path} holds no journal of ours: {error}") from error

    def close(self) -> None:
        """Close the store."""
        if os.getpid() == self._pid:
            self._environment.close()

    @contextmanager
    def view(self) -> Iterator[View]:
        """Read one state of the tables; to be left within milliseconds.

        Raises:
            DamageError: The file is damaged.
        """
        self._check_process()
        try:
            with self._begin_view() as transaction:
                yield View(transaction, self._tables)
        except lmdb.Error as error:
            raise self._damage(error) from error

    def has(self, table: Table, key: bytes) -> bool:
        """Whether there is a row; a fifth of what a view costs.

        Raises:
            DamageError: The file is damaged.
        """
        self._check_process()
        try:
            with self._begin_view() as transaction:
                return transaction.get(key, db=self._tables[table]) is not None
        except lmdb.Error as error:
            raise self._damage(error) from error

    def _damage(self, error: "lmdb.Error") -> DamageError:
        return DamageError(f"{self.path / DATA_NAME}: {error}")

    def apply(self, changes: Sequence[Change]) -> None:
        """Make changes, all of them or none, and return when they survive a loss of power.

        Raises:
            NoSpaceError: There is no room for them: neither in the map nor on the disk.
            LostStoreError: Writing failed; the store is to be opened anew by another process.
        """
        self._check_process()
        while True:
            try:
                self._commit(changes)
                return
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                if error.code in _NO_SPACE or self._is_full():
                    raise NoSpaceError(f"no room on the disk of {self.path}: {error}") from error
                raise LostStoreError(f"writing to {self.path} failed: {error}") from error

    def file_bytes(self) -> int:
        """Return the size of the file."""
        return (self.path / DATA_NAME).stat().st_size

    def map_bytes(self) -> int:
        """Return the size of the map, which grows by itself."""
        return self._environment.info()["map_size"]

    @property
    def commits(self) -> int:
        """How many commits there have been since the store was made."""
        return self._environment.info()["last_txnid"]

    def clear_readers(self) -> int:
        """Forget readers whose process ended without a word; returns how many there were."""
        self._check_process()
        return self._environment.reader_check()

    def other_readers(self) -> list[int]:
        """List the processes besides this one that have read since they opened the store."""
        self._environment.reader_check()
        lines = self._environment.readers().splitlines()[1:]  # the first has the headings
        return sorted({int(line.split()[0]) for line in lines} - {self._pid})

    def copy_to(self, descriptor: int, *, compact: bool) -> None:
        """Write a copy of the store, as it is now, to an open file, and sync it.

        Raises:
            LostStoreError: It can't be written.
        """
        self._check_process()
        try:
            self._environment.copyfd(descriptor, compact=compact)
            os.fsync(descriptor)
        except (lmdb.Error, OSError) as error:
            raise LostStoreError(f"copying the journal in {self.path} failed: {error}") from error

    def _begin_view(self) -> "lmdb.Transaction[bytes]":
        try:
            return self._environment.begin(write=False, buffers=False)
        except lmdb.MapResizedError:  # whoever writes has grown it
            self._environment.set_mapsize(0)
            return self._environment.begin(write=False, buffers=False)

    def _commit(self, changes: Sequence[Change]) -> None:
        tables = self._tables
        with self._environment.begin(write=True) as transaction:
            for change in changes:
                if isinstance(change, Put):
                    transaction.put(change.key, change.sealed, db=tables[change.table])
                elif isinstance(change, Puts):
                    table, rows, append = change
                    with transaction.cursor(db=tables[table]) as cursor:
                        _, added = cursor.putmulti(rows, append=append)
                    assert added == len(rows), f"{table}: {len(rows)} rows, {added} were put"
                else:
                    removed = transaction.delete(change.key, db=tables[change.table])
                    assert removed, f"{change.table} {change.key!r} is not there"

    def _grow(self) -> None:
        size = self.map_bytes()
        try:
            self._environment.set_mapsize(2 * size)
        except lmdb.Error as error:
            raise NoSpaceError(f"{self.path}: the map can't grow beyond {size} bytes") from error

    def _is_full(self) -> bool:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize < _SPARE_BYTES

    def _check_process(self) -> None:
        """Refuse to touch what a parent has open: LMDB would let its child write."""
        if os.getpid() != self._pid:
            raise LostStoreError(f"{self.path} was opened by process {self._pid}, not by this one")


def _create(path: Path) -> None:
    """Make an empty store; when it has its name it is whole, whatever happens.

    Raises:
        UnusableStoreError: It can't be made.
    """
    new = path / CREATING_NAME
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a start that was cut off
        new.mkdir(mode=0o700)
        environment = _open(new, map_bytes=_MAP_BYTES_MIN, readonly=False)
        try:
            with environment.begin(write=True) as transaction:
                for table in Table:
                    environment.open_db(_name(table), txn=transaction, create=True)
            environment.sync(force=True)
        finally:
            environment.close()
        os.replace(new / DATA_NAME, path / DATA_NAME)
        shutil.rmtree(new)
        sync_folder(path)
    except (lmdb.Error, OSError) as error:
        raise UnusableStoreError(f"can't make a journal in {path}: {error}") from error


def _tables(environment: lmdb.Environment) -> _Databases:
    return {table: environment.open_db(_name(table), create=False) for table in Table}


def _name(table: Table) -> bytes | None:
    """Return the name of a table's database.

    `META` is in the one without a name: that is written with each commit anyway, for it holds the
    roots of the others, so its rows cost no page of their own.
    """
    return None if table is Table.META else table.value


def page_problems(path: Path) -> list[str]:
    """Say what is wrong with the pages of a store that nobody writes to, without opening it."""
    try:
        return list(lmdb.verify.verify(os.fspath(path), subdir=True))  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        return [str(error)]


def _open(path: Path, *, map_bytes: int, readonly: bool) -> lmdb.Environment:
    """Open the environment; where address space is limited, with a smaller map."""
    while True:
        try:
            return lmdb.open(
                os.fspath(path),
                map_size=map_bytes,
                subdir=True,
                readonly=readonly,
                metasync=True,
                sync=True,
                map_async=False,
                mode=0o600,
                create=False,
                readahead=True,
                writemap=False,
                meminit=True,
                max_readers=_READERS_MAX,
                max_dbs=len(Table),
                max_spare_txns=1,
                lock=True,
                lib_version=0,
            )
        except lmdb.MemoryError as error:
            if map_bytes <= _MAP_BYTES_MIN:
                raise UnusableStoreError(f"no memory for the journal in {path}: {error}") from error
            map_bytes //= 2
        except lmdb.Error as error:
            raise UnusableStoreError(f"can't open the journal in {path}: {error}") from error
