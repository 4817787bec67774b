"""Mirror of broker/journal/pending.py."""

import pytest
from journal_records import accepted, ended

from pronghorn.broker.journal.fold import advance
from pronghorn.broker.journal.messages import (
    AskStatistics,
    FindKey,
    FindRun,
    ListOpen,
    ListRuns,
    Question,
    ReadEvents,
    ReadHistory,
    ReadValue,
)
from pronghorn.broker.journal.pending import Pending
from pronghorn.broker.journal.record import Reopened, Started
from pronghorn.broker.journal.rows import Filter

KEYED = accepted(3, owner="me", key="order")
OF_RUN_3: list[Question] = [
    FindRun(1, 3, b""),
    ReadEvents(1, 3, 0, 1),
    ReadValue(1, 3, 0),
    ReadHistory(1, 3, 0),
]
OF_ALL: list[Question] = [ListRuns(1, Filter(), None, 1), ListOpen(1, 0, 1), AskStatistics(1)]


@pytest.mark.parametrize("question", [*OF_RUN_3, *OF_ALL, FindKey(1, "me", "order")])
def test_questions_about_what_is_logged_concern_it(question: Question) -> None:
    pending = Pending()
    assert not pending.concerns(question)
    pending.add([KEYED], {})
    assert pending.concerns(question)
    pending.clear()
    assert not pending.concerns(question)


@pytest.mark.parametrize("question", OF_RUN_3)
def test_other_runs_and_keys_do_not(question: Question) -> None:
    pending = Pending()
    pending.add([accepted(4)], {})
    assert not pending.concerns(question)
    assert not pending.concerns(FindKey(1, "me", "order"))
    pending.add([KEYED], {})
    assert not pending.concerns(FindKey(1, "you", "order"))


def test_the_key_of_an_open_run_leads_to_what_is_logged_of_it() -> None:
    state = advance(None, 3, KEYED)
    pending = Pending()
    pending.add([Started(3, 3, 1, 0), ended(state)], {3: state})
    assert pending.concerns(FindKey(1, "me", "order"))
    assert not pending.concerns(FindKey(1, "me", "other"))


def test_any_key_may_lead_to_a_run_that_is_opened_again() -> None:
    pending = Pending()
    pending.add([Reopened(3, 4, 0)], {})
    assert pending.concerns(FindKey(1, "me", "any"))
    pending.clear()
    assert not pending.concerns(FindKey(1, "me", "any"))
