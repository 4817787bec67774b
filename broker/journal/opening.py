"""Opens the store to write: it is looked at, and takes in what only the log has. An IO shell.

Mirror: tests/broker/journal/test_opening.py.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from ..wire.version import SERVER_NAME
from .checking import check_in_child
from .errors import DamageError, LostStoreError, NoSpaceError, UnusableStoreError
from .ledger import Ledger
from .place import has_store
from .room import Room
from .store import Store
from .wal import recover

_log = logging.getLogger("pronghorn.broker.journal.writer")  # one logger for all of the process

CHECK_S: Final = 0.25
"""How long a store is looked at before it is trusted, besides what is always looked at."""


def open_store(path: Path, room: Room) -> tuple[Store, Ledger, tuple[str, ...]]:
    """Open the store in a folder that is held, or make it.

    Returns:
        The store, its ledger, and what is damaged and does no harm.

    Raises:
        UnusableStoreError: It can't be used; the message says what to do.
    """
    warnings = _check(path)
    store = Store.open_to_write(path)
    try:
        ledger = Ledger(store, program=SERVER_NAME, store_id=os.urandom(16), now_ns=time.time_ns())
        _recover(path, ledger, room)
    except (DamageError, NoSpaceError, LostStoreError) as error:
        store.close()
        raise UnusableStoreError(f"{path}: {error}") from error
    return store, ledger, warnings


def _check(path: Path) -> tuple[str, ...]:
    """Have a store looked at before it is opened; returns what is damaged and does no harm.

    Raises:
        UnusableStoreError: It is damaged so that it can't be used.
    """
    if not has_store(path):
        return ()
    report = check_in_child(path, seconds=CHECK_S)
    if report.fatal:
        raise UnusableStoreError(
            f"the journal in {path} is damaged: {report.problems[0]}; see `pronghorn journal "
            f"verify --data {path}`, and use a backup or move the folder away"
        )
    return tuple(report.problems)


def _recover(path: Path, ledger: Ledger, room: Room) -> None:
    """Have the store take in what was kept, and it does not have."""
    try:
        recovered = recover(path, ledger)
    except NoSpaceError:
        if not room.give_reserve():
            raise
        recovered = recover(path, ledger)
    if recovered:
        _log.info("%d records were only in the write-ahead log", recovered)
