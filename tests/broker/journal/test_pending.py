"""Mirror of broker/journal/pending.py."""

from collections.abc import Mapping

import pytest
from journal_records import accepted, ended

from pronghorn.broker.journal.fold import RunState, advance
from pronghorn.broker.journal.messages import (
    AskStatistics,
    FindKey,
    FindRun,
    ListKeys,
    ListOpen,
    ListRuns,
    Question,
    ReadEvents,
    ReadHistory,
    ReadValue,
    Void,
)
from pronghorn.broker.journal.pending import Pending
from pronghorn.broker.journal.record import Record, Reopened, Started
from pronghorn.broker.journal.rows import Filter

KEYED = accepted(3, owner="me", key="order")
OF_RUN_3: list[Question] = [
    FindRun(1, 3, b""),
    ReadEvents(1, 3, 0, 1),
    ReadValue(1, 3, 0),
    ReadHistory(1, 3, 0),
]
OF_ALL: list[Question] = [ListRuns(1, Filter(), None, 1), ListOpen(1, 0, 1), AskStatistics(1)]


def follow(
    pending: Pending,
    *records: Record,
    first: int = 3,
    open_runs: Mapping[int, RunState] | None = None,
    has_key: bool = False,
) -> bool:
    """Add records, if they follow."""
    entries = [(record, ()) for record in records]
    states = pending.follow(first, entries, open_runs or {}, lambda _: has_key)
    if states is not None:
        pending.add(states)
    return states is not None


@pytest.mark.parametrize("question", [*OF_RUN_3, *OF_ALL, FindKey(1, "me", "order")])
def test_questions_about_what_is_logged_concern_it(question: Question) -> None:
    pending = Pending()
    assert not pending.concerns(question)
    assert follow(pending, KEYED)
    assert pending.concerns(question)
    pending.clear()
    assert not pending.concerns(question)


@pytest.mark.parametrize("question", OF_RUN_3)
def test_other_runs_and_keys_do_not(question: Question) -> None:
    pending = Pending()
    assert follow(pending, accepted(2), first=2)
    assert not pending.concerns(question)
    assert not pending.concerns(FindKey(1, "me", "order"))
    assert follow(pending, KEYED)
    assert not pending.concerns(FindKey(1, "you", "order"))
    assert not pending.concerns(ListKeys(1, b"", 1))


def test_the_key_of_an_open_run_leads_to_what_is_logged_of_it() -> None:
    state = advance(None, 3, KEYED)
    started = Started(3, 3, 1, 0)
    state_then = advance(state, 4, started)
    pending = Pending()
    assert follow(pending, started, ended(state_then), first=4, open_runs={3: state})
    assert pending.concerns(FindKey(1, "me", "order"))
    assert not pending.concerns(FindKey(1, "me", "other"))


def test_records_follow_from_what_is_logged_before_them() -> None:
    pending = Pending()
    assert follow(pending, KEYED)
    assert follow(pending, end := ended(advance(None, 3, KEYED), "failed"), first=4)
    assert not follow(pending, end, first=5)
    assert follow(pending, Reopened(3, 4, 0), first=5)


@pytest.mark.parametrize(
    "record",
    [
        Started(2, 2, 1, 0),  # of a run that the store may have, and that is not open
        Started(3, 1, 1, 0),  # which does not follow its last record
        accepted(7),
        accepted(5, key="order", owner="me"),
        accepted(5, buffers=1),
        accepted(5, apart=(b"digest",)),
    ],
)
def test_what_does_not_follow_changes_nothing(record: Record) -> None:
    pending = Pending()
    assert follow(pending, KEYED)
    assert not follow(pending, accepted(4, key="other", owner="me"), record, first=4)
    assert not pending.concerns(FindRun(1, 4, b""))
    assert follow(pending, accepted(4, key="other", owner="me"), first=4)


def test_a_key_leads_to_one_run() -> None:
    pending = Pending()
    assert not follow(pending, KEYED, has_key=True)
    twice = [accepted(number, key="order", owner="me") for number in (3, 4)]
    assert not follow(pending, *twice)
    assert follow(pending, accepted(3), has_key=True)


def test_buffers_belong_to_a_value() -> None:
    pending = Pending()
    one: tuple[bytes, ...] = (b"buffer",)
    assert pending.follow(3, [(accepted(3, buffers=1), one)], {}, lambda _: False) is not None
    state = advance(None, 3, accepted(3))
    started = Started(3, 3, 1, 0)
    assert pending.follow(4, [(started, ())], {3: state}, lambda _: False) is not None
    assert pending.follow(4, [(started, one)], {3: state}, lambda _: False) is None


def test_what_stands_for_a_refused_record_is_not_logged() -> None:
    pending = Pending()
    assert pending.follow(3, [(Void(), ()), (accepted(4), ())], {}, lambda _: False) is None
    assert not pending.concerns(FindRun(1, 4, b""))
