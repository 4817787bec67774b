"""Answers to a broker's questions, out of one view of the store.

Mirror: tests/broker/journal/test_answers.py.
"""

from itertools import islice
from typing import Final

from ..wire.limits import MIB
from ..wire.link import Buffer, HistoryPart
from ..wire.messages import NIL
from .errors import DamageError
from .fold import RunState
from .ledger import Ledger
from .messages import (
    Answer,
    AskStatistics,
    Failed,
    FindKey,
    FindRun,
    FoundEvents,
    FoundHistory,
    FoundKeys,
    FoundOpen,
    FoundRun,
    FoundRuns,
    FoundValue,
    ListKeys,
    ListOpen,
    ListRuns,
    Question,
    ReadEvents,
    ReadHistory,
    ReadValue,
    Statistics,
)
from .reading import (
    PAGE_RUNS,
    events,
    find_key,
    find_run,
    find_state,
    history,
    last_record,
    list_runs,
    open_runs,
    record_at,
    value_of,
)
from .record import WithValue
from .rows import Table
from .store import Store, View

HISTORY_BYTES_MAX: Final = 2 * MIB
"""Of one answer; a record more may go beyond."""

Reply = tuple[Answer, tuple[Buffer, ...]]
"""An answer, and the buffers that go with it."""


def answer(store: Store, ledger: Ledger, question: Question) -> Reply:
    """Answer a question; what can't be answered is told."""
    try:
        with store.view() as view:
            if isinstance(question, AskStatistics):
                return _statistics(store, ledger, view, question.id), ()
            if isinstance(question, ReadEvents | ReadValue | ReadHistory):
                return _of_run(view, question)
            return _of_many(view, question)
    except DamageError as error:
        return Failed(question.id, str(error)), ()


def _of_many(view: View, question: FindRun | FindKey | ListKeys | ListRuns | ListOpen) -> Reply:
    match question:
        case FindRun(id, run, secret):
            return FoundRun(id, find_run(view, run, secret)), ()
        case FindKey(id, owner, key):
            return FoundRun(id, find_key(view, owner, key)), ()
        case ListKeys(id, after, limit):
            keys = view.walk(Table.KEYS, after + b"\0" if after else b"")
            return FoundKeys(id, tuple(key for key, _ in islice(keys, min(limit, PAGE_RUNS)))), ()
        case ListRuns(id, chosen, before, limit):
            page = list_runs(view, chosen, before=before, limit=min(limit, PAGE_RUNS))
            return FoundRuns(id, page.runs, page.before), ()
        case ListOpen(id, after, limit):
            return FoundOpen(
                id, tuple(open_runs(view, after=after, limit=min(limit, PAGE_RUNS)))
            ), ()


def _of_run(view: View, question: ReadEvents | ReadValue | ReadHistory) -> Reply:
    state = find_state(view, question.run)
    if state is None:
        return Failed(question.id, f"there is no run {question.run}", is_missing=True), ()
    if isinstance(question, ReadEvents):
        read = events(view, state, start=question.start, limit=min(question.limit, PAGE_RUNS))
        return FoundEvents(question.id, tuple(read)), ()
    if isinstance(question, ReadHistory):
        return _history(view, state, question)
    record = _record_with_value(view, state, question.sequence)
    if record is None:
        return Failed(question.id, f"run {state.run} has no value there"), ()
    value = value_of(view, record)
    found = FoundValue(question.id, value.content, value.codec, len(value.buffers))
    return found, value.buffers


def _history(view: View, state: RunState, question: ReadHistory) -> Reply:
    found, is_last = history(view, state, after=question.after, bytes_max=HISTORY_BYTES_MAX)
    parts: list[HistoryPart] = []
    buffers: list[bytes] = []
    for sequence, value in found:
        own = () if value is None else value.buffers
        parts.append(HistoryPart(sequence, NIL if value is None else value.content, len(own)))
        buffers += own
    return FoundHistory(question.id, tuple(parts), is_last, len(buffers)), tuple(buffers)


def _record_with_value(view: View, state: RunState, sequence: int) -> WithValue | None:
    if not sequence:
        return None if state.status == "open" else last_record(view, state)
    record = record_at(view, state, sequence)
    return record if isinstance(record, WithValue) else None


def _statistics(store: Store, ledger: Ledger, view: View, question_id: int) -> Statistics:
    return Statistics(
        question_id, ledger.counts, ledger.pruned, store.file_bytes(), view.used_bytes()
    )
