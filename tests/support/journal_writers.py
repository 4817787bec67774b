"""What tests do with the process of a journal: write runs to it, and look at what it has left."""

import time
from pathlib import Path
from typing import Any

from journal_records import accepted, value

from pronghorn.bench.subjects.journal import Broker, Journal
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.record import Ended
from pronghorn.broker.wire.control import JournalConfig, JournalFailed


def write_run(broker: Broker, **fields: Any) -> int:
    """Write a run that has ended."""
    run = broker.write_record(accepted(broker.next_sequence, **fields))
    broker.write_record(Ended(run, run, run, time.time_ns(), "done", 5, value(run)))
    return run


def whole(folder: Path) -> None:
    """Check that what a journal has left is as it should be."""
    report = check_folder(folder, at_rest=True)
    assert report.problems == []


def refused(folder: Path) -> str:
    """Have a journal opened that can't be; returns what is told of it."""
    running = Journal(JournalConfig(folder=str(folder)))
    assert isinstance(running.opened, JournalFailed), running.opened
    assert running.close() == 1
    return running.opened.message
