"""Mirror of bench/subjects/journal.py: what the tests of the writer do not use."""

from pathlib import Path

import pytest

from pronghorn.bench.subjects.journal import Journal, journal
from pronghorn.bench.subjects.journal_loads import accepted
from pronghorn.broker.wire.control import JournalConfig

pytestmark = pytest.mark.slow


def test_a_journal_that_can_not_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AssertionError, match="can't use"), journal(tmp_path / "file"):
        pass


def test_a_journal_that_ends_at_once_is_an_error(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}
    (tmp_path / "lmdb.py").write_text("raise SystemExit(7)")
    with pytest.raises(AssertionError, match="the journal ended with 7"):
        Journal(JournalConfig(folder=str(tmp_path / "journal")), environment)


def test_waiting_for_what_can_not_come_is_an_error(tmp_path: Path) -> None:
    with journal(tmp_path / "journal") as running:
        broker = running.attach("e1").welcomed()
        broker.write_record(accepted(broker.next_sequence))
        broker.settle()
        with pytest.raises(AssertionError, match="it does not happen"):
            broker.until(lambda: False, patience_s=0.01)
        running.kill()
        with pytest.raises(AssertionError, match="or the journal is gone"):
            broker.until(lambda: False)
        broker.close()
