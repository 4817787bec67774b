"""Mirror of broker/journal/answers.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journal_records import FIRST, SECRET, Story, accepted, value
from journal_stores import EPOCH, NOW_NS, commit, ledger

from pronghorn.broker.journal.answers import answer
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.messages import (
    AskStatistics,
    Failed,
    FindKey,
    FindRun,
    FoundEvents,
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
    ReadValue,
    Statistics,
)
from pronghorn.broker.journal.record import Started, key_of
from pronghorn.broker.journal.rows import Filter, Table, key_hash
from pronghorn.broker.journal.store import Put


@pytest.fixture
def story() -> Story:
    story = Story()
    run = story.accept(key="order-17", value=value({"a": 1}))
    story.add(Started(run, run, 2, 5))
    story.end(run, value=value("x" * 5000))
    story.accept()
    return story


@pytest.fixture
def books(tmp_path: Path, story: Story) -> Iterator[Ledger]:
    with ledger(tmp_path) as opened:
        opened.begin_epoch(EPOCH, NOW_NS)
        commit(opened, story.records)
        yield opened


def asked(books: Ledger, question: Question) -> Any:
    found, _ = answer(books._store, books, question)
    assert found.id == question.id
    return found


def test_runs_are_found_by_id_and_by_key(books: Ledger, story: Story) -> None:
    state = story.states[FIRST]
    assert asked(books, FindRun(1, FIRST, SECRET)) == FoundRun(1, state)
    assert asked(books, FindRun(2, FIRST, bytes(16))) == FoundRun(2, None)
    assert asked(books, FindKey(3, "uid:1000", "order-17")) == FoundRun(3, state)
    assert asked(books, FindKey(4, "uid:1", "order-17")) == FoundRun(4, None)


def test_lists_are_given_in_pages(books: Ledger, story: Story) -> None:
    first, last = story.states.values()
    found = asked(books, ListRuns(1, Filter(), None, 1))
    assert found == FoundRuns(1, (last,), last.run)
    assert asked(books, ListRuns(2, Filter(), last.run, 5)) == FoundRuns(2, (first,), None)
    opened = asked(books, ListOpen(3, 0, 10**9))
    assert isinstance(opened, FoundOpen)
    assert [state for state, _ in opened.runs] == [last]


def test_events_and_values_of_a_run(books: Ledger, story: Story) -> None:
    found = asked(books, ReadEvents(1, FIRST, FIRST + 1, 100))
    assert isinstance(found, FoundEvents)
    assert [sequence for sequence, _ in found.events] == [FIRST + 1, FIRST + 2]
    for sequence in (0, FIRST + 2):
        result = asked(books, ReadValue(2, FIRST, sequence))
        assert isinstance(result, FoundValue)
        assert bytes(result.value) == bytes(value("x" * 5000))
    params = asked(books, ReadValue(3, FIRST, FIRST))
    assert bytes(params.value) == bytes(value({"a": 1}))


def test_buffers_go_with_their_value(books: Ledger) -> None:
    run = books.counts.last + 1
    books.commit([(accepted(run, value=value(["a"]), buffers=1), (b"buffer",))])
    found, buffers = answer(books._store, books, ReadValue(1, run, run))
    assert isinstance(found, FoundValue)
    assert (found.buffers, buffers) == (1, (b"buffer",))


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (ReadValue(1, FIRST + 3, 0), f"run {FIRST + 3} has no value there"),
        (ReadValue(1, FIRST, FIRST + 1), f"run {FIRST} has no value there"),
        (ReadValue(1, FIRST, FIRST + 9), f"run {FIRST} has no value there"),
    ],
)
def test_what_is_not_there_is_told(books: Ledger, question: Question, message: str) -> None:
    assert asked(books, question) == Failed(1, message)


@pytest.mark.parametrize("question", [ReadEvents(1, 7, 0, 5), ReadValue(1, 7, 0)])
def test_a_run_that_is_not_there_is_told_as_missing(books: Ledger, question: Question) -> None:
    assert asked(books, question) == Failed(1, "there is no run 7", is_missing=True)


def test_damage_is_told_and_nothing_else_given(books: Ledger) -> None:
    books._store.apply([Put(Table.LOG, key_of(FIRST + 1), b"damaged")])
    found = asked(books, ReadEvents(1, FIRST, 0, 100))
    assert isinstance(found, Failed)
    assert "the checksum is wrong" in found.message


def test_statistics(books: Ledger) -> None:
    found = asked(books, AskStatistics(1))
    assert isinstance(found, Statistics)
    assert found.counts == books.counts
    assert 0 < found.used_bytes <= found.file_bytes


def test_keys_are_listed_by_their_hashes_in_pages(books: Ledger, story: Story) -> None:
    before = len(story.records)
    for number in range(4):
        story.accept(key=f"order-{number}")
    commit(books, story.records[before:])
    hashes = sorted(key_hash("uid:1000", f"order-{key}") for key in (17, 0, 1, 2, 3))
    assert asked(books, ListKeys(1, b"", 3)) == FoundKeys(1, tuple(hashes[:3]))
    assert asked(books, ListKeys(2, hashes[2], 3)) == FoundKeys(2, tuple(hashes[3:]))
    assert asked(books, ListKeys(3, hashes[4], 3)) == FoundKeys(3, ())
