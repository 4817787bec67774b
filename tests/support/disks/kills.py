"""A writer under load that is killed again and again, and its brokers too.

What was acknowledged is there, exactly once and in order; and while the broker lives, all that it
wrote.
"""

import time
from pathlib import Path
from random import Random
from typing import NamedTuple

from journal_records import Story, step

from pronghorn.bench.subjects.journal import Broker, Journal
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.reading import list_runs, read_counts
from pronghorn.broker.journal.record import generation_of
from pronghorn.broker.journal.rows import Filter
from pronghorn.broker.journal.store import Store
from pronghorn.broker.wire.control import JournalConfig, JournalOpened

_LOAD_S = 0.03
_OUTSTANDING_MAX = 500


class Killed(NamedTuple):
    """What a campaign did."""

    writers: int
    brokers: int
    records: int
    lost: int  # records of killed brokers that were not acknowledged


def campaign(folder: Path, kills: int, seed: int) -> Killed:
    """Kill so many writers, each tenth time the broker as well.

    Raises:
        AssertionError: A promise was broken.
    """
    random = Random(seed)
    config = JournalConfig(folder=str(folder), age_s=1e10)
    story, epoch, brokers, lost = Story(1), 1, 0, 0
    running, broker = Journal(config), None
    for _ in range(kills):
        broker = _attached(running, broker, epoch)
        _load(broker, story, random)
        running.kill()
        # What the writer said before it was killed counts.
        while not broker.gone:
            broker.exchange(1.0)
        running = Journal(config)
        if random.random() < 0.1:
            lost += _check_prefix(folder, story, broker)
            broker.close()
            broker, brokers, epoch = None, brokers + 1, epoch + 1
            story.next_generation(epoch)
    broker = _attached(running, broker, epoch)
    broker.settle()
    broker.close()
    assert running.close() == 0
    _check_all(folder, story)
    return Killed(kills, brokers, len(story.records), lost)


def _attached(running: Journal, before: Broker | None, epoch: int) -> Broker:
    assert isinstance(running.opened, JournalOpened), running.opened
    broker = running.attach(f"epoch-{epoch}")
    if before is None:
        broker.welcomed()
        assert broker.backlog is not None
        assert generation_of(broker.next_sequence) == epoch
        return broker
    before.close()
    assert before.backlog is not None
    return broker.take_over(before.backlog)


def _load(broker: Broker, story: Story, random: Random) -> None:
    """Write records for some milliseconds."""
    until = time.monotonic() + random.uniform(0.0, _LOAD_S)
    while time.monotonic() < until:
        assert broker.backlog is not None
        if len(broker.backlog) < _OUTSTANDING_MAX:
            for _ in range(random.choice((1, 5, 50))):
                before = len(story.records)
                step(story, random)
                for sequence, record in story.records[before:]:
                    assert broker.write_record(record) == sequence
            if random.random() < 0.5:
                broker.hurry()
        broker.exchange(0.001)


def _check_prefix(folder: Path, story: Story, broker: Broker) -> int:
    """Check what is left of a broker that died with the writer, and have the story be that."""
    last = _states(folder)[1]
    assert last >= broker.acknowledged, "an acknowledged record is lost"
    kept = [(sequence, record) for sequence, record in story.records if sequence <= last]
    lost = len(story.records) - len(kept)
    story.records.clear()
    story.states.clear()
    for sequence, record in kept:
        story.sequence = sequence - 1
        story.add(record)
    assert _states(folder)[0] == story.states
    return lost


def _check_all(folder: Path, story: Story) -> None:
    report = check_folder(folder, at_rest=True)
    assert report.problems == []
    assert report.records == len(story.records)
    assert _states(folder) == (story.states, story.sequence)


def _states(folder: Path) -> tuple[dict[int, object], int]:
    """Read the states of all runs, and the number of the last record."""
    store = Store.open_to_read(folder)
    states: dict[int, object] = {}
    before = None
    with store.view() as view:
        last = read_counts(view).last
        while True:
            page = list_runs(view, Filter(), before=before, limit=1000)
            states |= {state.run: state for state in page.runs}
            before = page.before
            if before is None:
                break
    store.close()
    return states, last
