"""Mirror of broker/journal/removal.py; what is removed, and when, is in test_ledger.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_records import Story, value
from journal_stores import EPOCH, NOW_NS, commit, ledger

from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.record import key_of
from pronghorn.broker.journal.removal import Removal
from pronghorn.broker.journal.rows import Counts, Pruned, Table
from pronghorn.broker.journal.store import Delete

LARGE = value("x" * 5000)


@pytest.fixture
def story() -> Story:
    story = Story()
    for number in range(3):
        story.end(story.accept(key=f"key-{number}", value=LARGE))
    return story


@pytest.fixture
def books(tmp_path: Path, story: Story) -> Iterator[Ledger]:
    with ledger(tmp_path) as opened:
        opened.begin_epoch(EPOCH, NOW_NS)
        commit(opened, story.records)
        yield opened


def test_all_that_is_only_its_own_goes_with_a_run(books: Ledger, story: Story) -> None:
    first, *others = story.states.values()
    with books._store.view() as view:
        removal = Removal(view, books.counts)
        removal.add(first)
        changes = removal.finish()
        assert {(type(change) is Delete, change.table) for change in changes} == {
            (True, Table.DONE),
            (True, Table.LOG),
            (True, Table.KEYS),
            (False, Table.USES),
        }
        assert (removal.runs, removal.records) == (1, 2)
        for state in others:
            removal.add(state)
        gone = [change.table for change in removal.finish()]
        assert (gone.count(Table.LOG), gone.count(Table.VALUES), gone.count(Table.USES)) == (
            6,
            1,
            1,
        )
        assert removal.counts == Counts(last=books.counts.last, epoch=EPOCH)
        pruned = removal.added_to(Pruned(runs=1, records=2, bytes=3, through=4, at_ns=5), NOW_NS)
        assert pruned == Pruned(4, 8, 3 + books.counts.bytes, others[-1].run, NOW_NS)


def test_of_a_damaged_run_nothing_is_removed(books: Ledger, story: Story) -> None:
    first, second, _ = story.states.values()
    books._store.apply([Delete(Table.LOG, key_of(second.last))])
    with books._store.view() as view:
        removal = Removal(view, books.counts)
        removal.add(first)
        before = removal.finish(), removal.counts
        with pytest.raises(DamageError, match=f"record {second.last} of run .* is missing"):
            removal.add(second)
        assert (removal.finish(), removal.counts) == before


def test_a_value_that_is_not_there_is_damage(books: Ledger, story: Story) -> None:
    with books._store.view() as view:
        ((digest, _),) = view.walk(Table.USES)
    books._store.apply([Delete(Table.USES, digest)])
    with books._store.view() as view, pytest.raises(DamageError, match="used and not there"):
        Removal(view, books.counts).add(next(iter(story.states.values())))
