"""Mirror of broker/journal/posting.py; sequences of batches are in test_ledger.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_records import FIRST, accepted, ended, value
from journal_stores import EPOCH, NOW_NS, ledger

from pronghorn.broker.journal.errors import HistoryError
from pronghorn.broker.journal.fold import advance
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.messages import Void
from pronghorn.broker.journal.posting import Posting
from pronghorn.broker.journal.record import Reopened, Started, key_of
from pronghorn.broker.journal.rows import APART_BYTES_MIN, Table
from pronghorn.broker.journal.store import Change, Delete, Puts, View

LARGE = value("x" * APART_BYTES_MIN)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    with ledger(tmp_path) as opened:
        opened.begin_epoch(EPOCH, NOW_NS)
        yield opened


@pytest.fixture
def view(books: Ledger) -> Iterator[View]:
    with books._store.view() as seen:
        yield seen


@pytest.fixture
def posting(books: Ledger, view: View) -> Posting:
    return Posting(view, books.counts, books.open)


def rows(changes: list[Change]) -> list[tuple[str, str]]:
    """Name each row that is changed, and how."""
    named: list[tuple[str, str]] = []
    for change in changes:
        count = len(change.rows) if isinstance(change, Puts) else 1
        how = "Delete" if isinstance(change, Delete) else "Put"
        named += [(how, change.table.name)] * count
    return named


def test_a_call_that_ends_in_its_batch_is_never_open(posting: Posting) -> None:
    posting.add_all([(accepted(), ()), (ended(advance(None, FIRST, accepted())), ())])
    changes = posting.finish()
    assert rows(changes) == [("Put", "LOG"), ("Put", "LOG"), ("Put", "DONE")]
    counts = posting.counts
    assert (counts.last, counts.records, counts.open, counts.done) == (FIRST + 1, 2, 0, 1)
    assert isinstance(changes[0], Puts)
    assert counts.bytes == sum(len(sealed) for _, sealed in changes[0].rows)


def test_a_run_that_ends_later_moves_from_one_table_to_the_other(
    books: Ledger, posting: Posting
) -> None:
    posting.add_all([(accepted(), ())])
    assert rows(posting.finish()) == [("Put", "LOG"), ("Put", "OPEN")]
    assert posting.counts.open == 1
    books.commit([(accepted(), ())])
    with books._store.view() as view:
        later = Posting(view, books.counts, books.open)
        later.add_all([(ended(books.open[FIRST]), ())])
        changes = later.finish()
    assert rows(changes) == [("Put", "LOG"), ("Delete", "OPEN"), ("Put", "DONE")]
    assert changes[1] == Delete(Table.OPEN, key_of(FIRST))
    assert (later.counts.open, later.counts.done) == (0, 1)


def test_a_run_may_be_reopened_in_the_batch_that_has_ended_it(posting: Posting) -> None:
    failed = ended(advance(None, FIRST, accepted()), "failed")
    reopened = Reopened(FIRST, FIRST + 1, NOW_NS)
    posting.add_all([(accepted(), ()), (failed, ()), (reopened, ())])
    assert rows(posting.finish()) == [("Put", "LOG")] * 3 + [("Put", "OPEN")]
    assert (posting.counts.open, posting.counts.done) == (1, 0)


def test_a_run_that_is_reopened_moves_back(books: Ledger) -> None:
    books.commit([(accepted(), ())])
    books.commit([(ended(books.open[FIRST], "failed"), ())])
    with books._store.view() as view:
        later = Posting(view, books.counts, books.open)
        later.add_all([(Reopened(FIRST, FIRST + 1, NOW_NS), ())])
        assert rows(later.finish()) == [("Put", "LOG"), ("Delete", "DONE"), ("Put", "OPEN")]
        assert (later.counts.open, later.counts.done) == (1, 0)


def test_records_of_ended_and_of_unknown_runs_are_refused(books: Ledger) -> None:
    books.commit([(accepted(), ())])
    books.commit([(ended(books.open[FIRST]), ())])
    with books._store.view() as view:
        later = Posting(view, books.counts, books.open)
        with pytest.raises(HistoryError, match="has ended, done"):
            later.add_all([(Started(FIRST, FIRST + 1, 2, NOW_NS), ())])
        with pytest.raises(HistoryError, match="was never accepted"):
            later.add_all([(Started(FIRST + 50, FIRST + 1, 2, NOW_NS), ())])


def test_large_values_are_kept_once_and_small_ones_within_their_record(posting: Posting) -> None:
    posting.add_all([(accepted(value=LARGE), ())])
    posting.add_all([(ended(posting.states[FIRST], value=LARGE), ())])
    posting.add_all([(accepted(FIRST + 2, value=value("x" * 100)), ())])
    changes = posting.finish()
    assert [table for _, table in rows(changes) if table in ("VALUES", "USES")] == [
        "VALUES",
        "USES",
    ]
    assert posting.counts.values == 1
    assert posting.counts.bytes < 2 * APART_BYTES_MIN
    assert isinstance(changes[0], Puts)
    assert [len(sealed) < 300 for _, sealed in changes[0].rows] == [True] * 3


def test_a_value_that_is_kept_already_is_only_counted(books: Ledger) -> None:
    books.commit([(accepted(value=LARGE), ())])
    with books._store.view() as view:
        later = Posting(view, books.counts, books.open)
        later.add_all([(accepted(FIRST + 1, value=LARGE), ())])
        assert rows(later.finish()) == [("Put", "LOG"), ("Put", "OPEN"), ("Put", "USES")]
        assert later.counts.values == 1


def test_buffers_are_kept_apart_with_their_value(posting: Posting) -> None:
    posting.add_all([(accepted(value=value(["a"]), buffers=2), (b"one", b"two"))])
    assert posting.finish()
    assert posting.counts.values == 3


@pytest.mark.parametrize("buffers", [0, 1, 3])
def test_buffers_that_do_not_fit_are_refused(posting: Posting, buffers: int) -> None:
    with pytest.raises(HistoryError, match=f"has {buffers} buffers, not 2"):
        posting.add_all([(accepted(value=value(["a"]), buffers=2), (b"b",) * buffers)])


def test_a_sender_can_not_name_values_itself(posting: Posting) -> None:
    with pytest.raises(HistoryError, match="has 0 buffers"):
        posting.add_all([(accepted(apart=(b"d" * 32,)), ())])


def test_records_without_a_value_have_no_buffers(posting: Posting) -> None:
    posting.add_all([(accepted(), ())])
    state = posting.states[FIRST]
    record = Started(FIRST, FIRST, 1, NOW_NS)
    assert advance(state, FIRST + 1, record).begun
    with pytest.raises(HistoryError, match="can't have buffers"):
        posting.add_all([(record, (b"b",))])


def test_what_stands_for_a_refused_record_has_a_number_and_no_row(posting: Posting) -> None:
    posting.add_all([(Void(), ()), (accepted(FIRST + 1), ()), (Void(), ()), (Void(), ())])
    assert rows(posting.finish()) == [("Put", "LOG"), ("Put", "OPEN")]
    assert (posting.counts.last, posting.counts.records) == (FIRST + 3, 1)


def test_the_number_of_the_record_that_fails_is_known(posting: Posting) -> None:
    with pytest.raises(HistoryError):
        posting.add_all([(accepted(), ()), (Void(), ()), (Started(7, 7, 1, 0), ())])
    assert posting.next_sequence == FIRST + 2
