"""Mirror of broker/journal/opening.py: real processes."""

import os
from pathlib import Path

import pytest
from journal_stores import filled
from journal_writers import refused, write_run

from pronghorn.bench.subjects.journal import journal
from pronghorn.broker.journal.messages import (
    AskStatistics,
)
from pronghorn.broker.journal.place import DATA_NAME, WAL_NAME
from pronghorn.broker.journal.record import key_of
from pronghorn.broker.journal.rows import Table
from pronghorn.broker.journal.store import Put, Store
from pronghorn.broker.wire.control import JournalOpened

pytestmark = pytest.mark.slow


def test_a_damaged_store_is_told_and_left_alone(folder: Path) -> None:
    filled(folder, records=100)
    content = bytearray((folder / DATA_NAME).read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    (folder / DATA_NAME).write_bytes(content)
    message = refused(folder)
    assert f"the journal in {folder} is damaged" in message
    assert f"`pronghorn journal verify --data {folder}`" in message
    assert (folder / DATA_NAME).read_bytes() == content


def test_a_damaged_log_is_told_with_what_to_do(folder: Path) -> None:
    filled(folder, records=100, logged=10)
    frame = (folder / WAL_NAME).read_bytes()
    (folder / WAL_NAME).write_bytes(frame[:30] + b"?" + frame[31:] + frame)
    message = refused(folder)
    assert f"{folder / WAL_NAME}: record " in message
    assert "move that file away" in message
    (folder / WAL_NAME).unlink()
    with journal(folder) as running:
        broker = running.attach("e9").welcomed()
        found = broker.ask(AskStatistics(1))
        assert found.counts.records + found.pruned.records == 90
        broker.close()


def test_damage_that_concerns_no_open_run_is_told_and_passed_over(folder: Path) -> None:
    story = filled(folder, records=100)
    done = next(state for state in story.states.values() if state.status == "done")
    store = Store.open_to_write(folder)
    store.apply([Put(Table.LOG, key_of(done.last), b"damaged")])
    store.close()
    with journal(folder) as running:
        assert isinstance(running.opened, JournalOpened)
        assert f"log {done.last}" in running.opened.warnings[0]
        broker = running.attach("e2").welcomed()
        write_run(broker)
        broker.settle()
        broker.close()
