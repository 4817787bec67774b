"""Mirror of broker/journal/reading.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from journal_records import FIRST, SECRET, Story, accepted, value
from journal_stores import EPOCH, NOW_NS, commit, filled, ledger

from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.reading import (
    Value,
    events,
    find_key,
    find_run,
    find_state,
    last_record,
    list_runs,
    open_runs,
    params_of,
    read_counts,
    record_at,
    value_of,
)
from pronghorn.broker.journal.record import Ended, key_of
from pronghorn.broker.journal.rows import Filter, Table
from pronghorn.broker.journal.store import Delete, Put, Store, View


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return filled(tmp_path)


@pytest.fixture
def view(tmp_path: Path, story: Story) -> Iterator[View]:
    store = Store.open_to_read(tmp_path)
    with store.view() as seen:
        yield seen
    store.close()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    with ledger(tmp_path) as opened:
        opened.begin_epoch(EPOCH, NOW_NS)
        yield opened


def test_every_run_is_found_with_its_state_and_its_records(view: View, story: Story) -> None:
    assert read_counts(view).last == story.sequence
    for run, state in story.states.items():
        assert find_state(view, run) == find_run(view, run, SECRET) == state
        told = [(sequence, type(each)) for sequence, each in story.records if each.run == run]
        read = events(view, state)
        assert [(sequence, type(each)) for sequence, each in read] == told
        assert events(view, state, start=told[-1][0]) == read[-1:]
        assert events(view, state, start=told[0][0] + 1, limit=1) == read[1:2]
        assert [type(record_at(view, state, sequence)) for sequence, _ in told] == [
            kind for _, kind in told
        ]
        assert record_at(view, state, story.sequence + 1) is None
        if state.key is not None:
            assert find_key(view, state.owner, state.key) == state
        if state.status != "open":
            assert last_record(view, state).status == state.status


def test_values_are_read_wherever_they_are_kept(view: View, story: Story) -> None:
    apart = 0
    for state in story.states.values():
        given = story.records[state.run - FIRST][1]
        assert bytes(params_of(view, state).content) == bytes(given.value)  # type: ignore[union-attr]
        for sequence, record in events(view, state):
            if isinstance(record, Ended):
                told = story.records[sequence - FIRST][1]
                assert bytes(value_of(view, record).content) == bytes(told.value)  # type: ignore[union-attr]
                apart += bool(record.apart)
    assert apart


def test_buffers_come_with_their_value(books: Ledger) -> None:
    books.commit([(accepted(value=value(["a"]), buffers=2, codec=1), (b"one", b"two"))])
    with books._store.view() as view:
        found = params_of(view, books.open[FIRST])
    assert found == Value(found.content, (b"one", b"two"), 1)
    assert bytes(found.content) == bytes(value(["a"]))


def test_a_record_of_another_run_is_none_of_its_own(view: View, story: Story) -> None:
    first, second, *_ = story.states.values()
    assert record_at(view, first, second.run) is None


def test_a_wrong_secret_finds_nothing(view: View, story: Story) -> None:
    run = next(iter(story.states))
    assert find_run(view, run, bytes(16)) is None
    assert find_run(view, run, b"") is None
    assert find_run(view, 7, SECRET) is None
    assert find_key(view, "somebody else", "key-0") is None


def test_lists_are_newest_first_and_in_pages(view: View, story: Story) -> None:
    expected = sorted(story.states, reverse=True)
    found: list[int] = []
    before = None
    pages = 0
    while True:
        page = list_runs(view, Filter(), before=before, limit=7)
        assert len(page.runs) <= 7
        found += [state.run for state in page.runs]
        pages += 1
        before = page.before
        if before is None:
            break
    assert found == expected
    assert pages > len(expected) // 7


@pytest.mark.parametrize(
    "chosen",
    [
        Filter(statuses=("open",)),
        Filter(statuses=("done", "failed")),
        Filter(node="shop.sell", owner="uid:1000"),
        Filter(node="shop.buy"),
        Filter(owner="uid:1"),
        Filter(since_ns=FIRST + 50, until_ns=FIRST + 200),
    ],
)
def test_lists_have_what_is_chosen(view: View, story: Story, chosen: Filter) -> None:
    expected = [run for run, state in story.states.items() if chosen.meets(state)]
    assert [state.run for state in list_runs(view, chosen, limit=1000).runs] == expected[::-1]
    if chosen.since_ns:
        assert 0 < len(expected) < len(story.states)


def test_a_page_ends_when_much_was_looked_at_in_vain(
    view: View, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronghorn.broker.journal.reading._LOOKED_AT_MAX", 10)
    page = list_runs(view, Filter(node="shop.buy"), limit=5)
    assert page.runs == ()
    assert page.before == sorted(story.states, reverse=True)[9]


def test_open_runs_are_given_in_order_with_their_parameters(view: View, story: Story) -> None:
    expected = [state for state in story.states.values() if state.status == "open"]
    first = open_runs(view, after=0, limit=3)
    assert [state for state, _ in first] == expected[:3]
    rest = open_runs(view, after=first[-1][0].run, limit=1000)
    assert [state for state, _ in rest] == expected[3:]
    assert all(record.run == state.run for state, record in rest)


# --- damage ----------------------------------------------------------------------------------


@pytest.fixture
def ended_run(books: Ledger) -> int:
    told = Story()
    run = told.accept(key="order-17", value=value("x" * 5000))
    told.end(run)
    commit(books, told.records)
    return run


@pytest.mark.parametrize(
    ("removed", "match"),
    [
        (lambda run: Delete(Table.LOG, key_of(run + 1)), "is missing"),
        (lambda run: Delete(Table.LOG, key_of(run)), "no beginning|is missing"),
        (lambda run: Delete(Table.DONE, key_of(run)), "no state|not there"),
    ],
)
def test_what_is_missing_of_a_run_is_damage_and_not_its_absence(
    books: Ledger, ended_run: int, removed: object, match: str
) -> None:
    with books._store.view() as view:
        state = find_state(view, ended_run)
        assert state is not None
    books._store.apply([removed(ended_run)])  # type: ignore[operator]
    with books._store.view() as view:
        with pytest.raises(DamageError, match=match):
            assert find_run(view, ended_run, SECRET) != events(view, state)
        with pytest.raises(DamageError, match=match):
            assert find_key(view, "uid:1000", "order-17") != events(view, state)


def test_a_value_that_is_missing_or_changed_is_damage(books: Ledger, ended_run: int) -> None:
    with books._store.view() as view:
        state = find_state(view, ended_run)
        assert state is not None
        ((digest, sealed),) = view.walk(Table.VALUES)
    books._store.apply([Put(Table.VALUES, digest, sealed[:-1] + b"?")])
    with books._store.view() as view, pytest.raises(DamageError, match="checksum"):
        params_of(view, state)
    books._store.apply([Delete(Table.VALUES, digest)])
    with books._store.view() as view, pytest.raises(DamageError, match=r"value .* is missing"):
        params_of(view, state)


def test_a_key_that_leads_astray_is_damage(books: Ledger, ended_run: int) -> None:
    books._store.apply(
        [Delete(Table.DONE, key_of(ended_run)), Delete(Table.LOG, key_of(ended_run))]
    )
    with books._store.view() as view, pytest.raises(DamageError, match="leads to run"):
        find_key(view, "uid:1000", "order-17")


def test_an_ended_run_without_an_end_is_damage(books: Ledger, ended_run: int) -> None:
    with books._store.view() as view:
        state = find_state(view, ended_run)
        assert state is not None
        for wrong in (
            type(state)(**{f: getattr(state, f) for f in state.__struct_fields__} | {"records": 1}),
            type(state)(**{f: getattr(state, f) for f in state.__struct_fields__} | {"run": 5}),
        ):
            with pytest.raises(DamageError, match="is not what run"):
                last_record(view, wrong)
