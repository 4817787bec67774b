"""Mirror of broker/inquiries.py."""

from typing import Any

from pronghorn.broker.events import AskJournal, JournalAnswered
from pronghorn.broker.inquiries import Inquiries, MissingError, Steps, UnaskedError
from pronghorn.broker.journal.messages import Failed, FindKey, FoundRun, ListOpen
from pronghorn.broker.wire.errors import JournalError

KEY = FindKey(0, "", "key")


def asked(inquiries: Inquiries) -> list[Any]:
    questions = [one.question for one in inquiries.commands if isinstance(one, AskJournal)]
    inquiries.commands.clear()
    return questions


def asking(told: list[Any], *questions: Any) -> Steps:
    for question in questions:
        try:
            answer, _ = yield question
        except JournalError as error:
            told.append(error.message)
        else:
            told.append(answer)


def test_a_question_waits_for_the_journal_and_its_answer_is_gone_on_with() -> None:
    inquiries, told = Inquiries(), list[Any]()
    inquiries.begin(asking(told, KEY, ListOpen(0, 0, 1)), 1.0)
    assert asked(inquiries) == []
    inquiries.on_welcomed()
    assert asked(inquiries) == [FindKey(1, "", "key")]
    found = FoundRun(1, None)
    inquiries.on_answered(JournalAnswered(found), 2.0)
    assert (told, inquiries.now) == ([found], 2.0)
    assert asked(inquiries) == [ListOpen(2, 0, 1)]
    inquiries.on_answered(JournalAnswered(Failed(2, "it is damaged")), 3.0)
    assert told[1:] == ["the journal can't tell: it is damaged"]
    assert asked(inquiries) == []


def test_a_run_that_is_missing_is_told_from_what_is_damaged_and_what_nobody_answers() -> None:
    inquiries, raised = Inquiries(), list[type]()

    def asking() -> Steps:
        for _ in range(3):
            try:
                yield KEY
            except JournalError as error:
                raised.append(type(error))

    inquiries.on_welcomed()
    inquiries.begin(asking(), 1.0)
    inquiries.on_answered(JournalAnswered(Failed(1, "there is none", is_missing=True)), 2.0)
    inquiries.on_answered(JournalAnswered(Failed(2, "it is damaged")), 3.0)
    inquiries.give_up("the stream is broken", 4.0)
    assert raised == [MissingError, JournalError, UnaskedError]


def test_what_a_dead_journal_has_not_answered_is_asked_of_the_next_one() -> None:
    inquiries, told = Inquiries(), list[Any]()
    inquiries.on_welcomed()
    inquiries.begin(asking(told, KEY), 1.0)
    first = asked(inquiries)
    inquiries.on_gone("", 2.0)
    inquiries.begin(asking(told, KEY), 3.0)
    assert asked(inquiries) == []
    inquiries.on_welcomed()
    assert asked(inquiries) == [*first, FindKey(2, "", "key")]


def test_without_a_journal_who_has_asked_is_told() -> None:
    inquiries, told = Inquiries(), list[Any]()
    inquiries.on_welcomed()
    inquiries.begin(asking(told, KEY, KEY), 1.0)
    asked(inquiries)
    inquiries.on_gone("no folder", 2.0)
    assert told == ["the journal can't be asked: no folder"]
    inquiries.on_answered(JournalAnswered(FoundRun(1, None)), 3.0)  # that was on its way
    assert len(told) == 1
    inquiries.on_welcomed()  # and what it goes on with is asked of the next one
    assert asked(inquiries) == [FindKey(2, "", "key")]


def test_who_asks_nothing_has_ended() -> None:
    inquiries, told = Inquiries(), list[Any]()
    inquiries.begin(asking(told), 1.0)
    inquiries.on_welcomed()
    assert asked(inquiries) == []
