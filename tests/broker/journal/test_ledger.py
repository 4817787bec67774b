"""Mirror of broker/journal/ledger.py."""

from pathlib import Path
from random import Random

import pytest
from journal_records import Story, accepted, ended, step, value
from journal_stores import EPOCH, NOW_NS, commit, filled, ledger

from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.errors import HistoryError, UnusableStoreError
from pronghorn.broker.journal.ledger import SLICE_RECORDS, Ledger, Retention
from pronghorn.broker.journal.reading import find_key, find_run, list_runs
from pronghorn.broker.journal.record import key_of, sequence_of
from pronghorn.broker.journal.rows import FORMAT_KEY, Filter, Format, Table, sealed_row
from pronghorn.broker.journal.store import Put

DAY_NS = 24 * 3600 * 10**9
EVERYTHING = Retention(age_s=1e9)


def whole(path: Path) -> None:
    report = check_folder(path, at_rest=True)
    assert report.problems == []
    assert report.complete


def test_a_new_store_is_empty_and_ours(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        assert books.open == {}
        assert books.counts.last == 0
    with ledger(tmp_path) as books:
        assert books.begin_epoch(EPOCH, NOW_NS) == sequence_of(1, 0)
    whole(tmp_path)


def test_a_store_of_a_newer_format_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger(tmp_path) as books:
        monkeypatch.setattr("pronghorn.broker.journal.record.FORMAT_VERSION", 2)
        row = sealed_row(Table.META, FORMAT_KEY, Format("pronghorn/9", b"i", 0))
        books._store.apply([Put(Table.META, FORMAT_KEY, row)])
    monkeypatch.undo()
    newer = pytest.raises(UnusableStoreError, match=r"newer version of Pronghorn: .* only 1")
    with newer, ledger(tmp_path):
        pass
    assert check_folder(tmp_path).fatal


def test_a_store_of_others_is_left_alone(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        books._store.apply([Put(Table.KEYS, b"theirs", b"value")])
        with books._store._environment.begin(write=True) as transaction:
            transaction.delete(FORMAT_KEY, db=books._store._tables[Table.META])
    with pytest.raises(UnusableStoreError, match="tables of somebody else"), ledger(tmp_path):
        pass


def test_a_key_has_a_run_once_that_is_kept(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        run = books.begin_epoch(EPOCH, NOW_NS) + 1
        record = accepted(run, key="order-17")
        assert not books.has_key((record.owner, "order-17"))
        books.commit([(record, ())])
        assert books.has_key((record.owner, "order-17"))
        assert not books.has_key((record.owner, "order-18"))


def test_what_was_kept_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    story = filled(tmp_path)
    with ledger(tmp_path) as books:
        assert books.counts.last == story.sequence
        assert books.open == {
            run: state for run, state in story.states.items() if state.status == "open"
        }
        assert books.begin_epoch(EPOCH, NOW_NS) == story.sequence  # the same broker goes on
    whole(tmp_path)


def test_another_epoch_has_a_generation_of_its_own(tmp_path: Path) -> None:
    filled(tmp_path)
    with ledger(tmp_path) as books:
        assert books.begin_epoch("epoch-2", NOW_NS) == sequence_of(2, 0)
        run = sequence_of(2, 1)
        assert books.commit([(accepted(run), ())]) == run
    whole(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_stories_over_generations_are_whole(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    story = filled(tmp_path, records=100, seed=seed)
    for generation in (2, 3):
        story.next_generation(generation)
        begin = len(story.records)
        while len(story.records) < begin + 100:
            step(story, random)
        with ledger(tmp_path) as books:
            books.begin_epoch(f"epoch-{generation}", NOW_NS)
            commit(books, story.records[begin:], batch=random.choice((1, 7, 100)))
            assert books.open.keys() == {
                run for run, state in story.states.items() if state.status == "open"
            }
        whole(tmp_path)


def test_a_batch_with_a_record_that_does_not_follow_is_refused_whole(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        first = books.begin_epoch(EPOCH, NOW_NS) + 1
        with pytest.raises(HistoryError, match="not itself"):
            books.commit([(accepted(first), ()), (accepted(first + 5), ())])
        assert books.commit([(accepted(first), ())]) == first
    whole(tmp_path)


def test_a_key_leads_to_its_first_run_for_ever(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        run = books.begin_epoch(EPOCH, NOW_NS) + 1
        books.commit([(accepted(run, key="order-17"), ())])
        with pytest.raises(HistoryError, match="the key 'order-17' of another run"):
            books.commit([(accepted(run + 1, key="order-17"), ())])
        with pytest.raises(HistoryError, match="'twice'"):
            books.commit(
                [(accepted(run + 1, key="twice"), ()), (accepted(run + 2, key="twice"), ())]
            )
        books.commit([(accepted(run + 1, key="order-17", owner="uid:1"), ())])
        with books._store.view() as view:
            found = find_key(view, "uid:1000", "order-17")
            assert found is not None
            assert found.run == run
            assert find_key(view, "uid:1000", "order-18") is None
    whole(tmp_path)


# --- retention -------------------------------------------------------------------------------


def kept_for(path: Path, days: int) -> Story:
    """A run a day, ended at once; each tenth stays open."""
    story = Story()
    with ledger(path) as books:
        books.begin_epoch(EPOCH, NOW_NS)
        for day in range(days):
            run = story.accept(
                at_ns=NOW_NS + day * DAY_NS, key=f"day-{day}", value=value("x" * 2000)
            )
            if day % 10:
                story.end(run, at_ns=NOW_NS + day * DAY_NS + 1, value=value("y" * 2000))
        commit(books, story.records)
    return story


def prune(books: Ledger, retention: Retention, now_ns: int = NOW_NS) -> int:
    removed, finished = 0, False
    while not finished:
        runs, damaged, finished = books.prune(retention, now_ns)
        assert damaged == 0
        removed += runs
    return removed


def test_runs_are_removed_by_the_age_of_their_end(tmp_path: Path) -> None:
    story = kept_for(tmp_path, 30)
    with ledger(tmp_path) as books:
        now_ns = NOW_NS + 30 * DAY_NS
        assert prune(books, Retention(age_s=15 * 24 * 3600.0), now_ns) == 13
        assert prune(books, Retention(age_s=15 * 24 * 3600.0), now_ns) == 0
        assert len(books.open) == 3
        assert books.pruned.runs == 13
        assert books.pruned.records == 26
        assert books.pruned.through == list(story.states)[14]
        with books._store.view() as view:
            assert find_key(view, "uid:1000", "day-1") is None
            assert find_key(view, "uid:1000", "day-16") is not None
    whole(tmp_path)


def test_a_run_that_took_long_is_kept_from_its_end_on(tmp_path: Path) -> None:
    story = kept_for(tmp_path, 30)
    with ledger(tmp_path) as books:
        first = next(iter(story.states))
        commit(
            books, [(story.sequence + 1, ended(story.states[first], at_ns=NOW_NS + 29 * DAY_NS))]
        )
        assert prune(books, Retention(age_s=15 * 24 * 3600.0), NOW_NS + 30 * DAY_NS) == 13
        with books._store.view() as view:
            assert find_run(view, first, bytes(range(16))) is not None
    whole(tmp_path)


def test_runs_are_removed_by_their_number(tmp_path: Path) -> None:
    kept_for(tmp_path, 30)
    with ledger(tmp_path) as books:
        assert prune(books, Retention(age_s=1e9, runs=5)) == 22
        assert (books.counts.done, books.counts.open) == (5, 3)
    whole(tmp_path)


def test_runs_are_removed_by_their_bytes_but_never_open_ones(tmp_path: Path) -> None:
    kept_for(tmp_path, 30)
    with ledger(tmp_path) as books:
        before = books.counts.bytes
        prune(books, Retention(age_s=1e9, bytes=before // 2))
        assert before // 2 - 5000 < books.counts.bytes <= before // 2
        assert books.pruned.bytes == before - books.counts.bytes
        prune(books, Retention(age_s=1e9, bytes=0))
        assert (books.counts.done, books.counts.open) == (0, 3)
    whole(tmp_path)


def test_a_value_goes_with_the_last_run_that_uses_it(tmp_path: Path) -> None:
    with ledger(tmp_path) as books:
        story = Story()
        books.begin_epoch(EPOCH, NOW_NS)
        for number in range(4):
            run = story.accept(at_ns=NOW_NS, value=value("same" * 1000))
            if number < 3:
                story.end(run, at_ns=NOW_NS, value=value("same" * 1000))
        commit(books, story.records)
        assert books.counts.values == 1
        prune(books, Retention(age_s=1e9, runs=1))
        assert books.counts.values == 1
        prune(books, Retention(age_s=1e9, runs=0))
        assert books.counts.values == 1  # of the open one
        commit(books, [(story.sequence + 1, ended(story.states[story.sequence], at_ns=NOW_NS))])
        prune(books, Retention(age_s=1e9, runs=0))
        assert books.counts.values == 0
        assert books.counts.bytes == 0
    whole(tmp_path)


def test_chosen_runs_are_removed(tmp_path: Path) -> None:
    story = filled(tmp_path)
    failed = {run for run, state in story.states.items() if state.status == "failed"}
    assert failed
    with ledger(tmp_path) as books:
        done = books.prune(EVERYTHING, NOW_NS, chosen=lambda state: state.status == "failed")
        assert done == (len(failed), 0, True)
        with books._store.view() as view:
            left = list_runs(view, Filter(), limit=1000).runs
        assert {state.run for state in left} == story.states.keys() - failed
    whole(tmp_path)


@pytest.mark.slow
def test_slices_are_bounded_and_new_records_go_between_them(tmp_path: Path) -> None:
    story = filled(tmp_path, records=3 * SLICE_RECORDS)
    with ledger(tmp_path) as books:
        rounds, finished = 0, False
        while not finished:
            before = books.counts.records
            _, _, finished = books.prune(Retention(age_s=1e9, runs=0), NOW_NS)
            assert before - books.counts.records < SLICE_RECORDS + 50
            run = books.counts.last + 1
            books.commit([(accepted(run, key=f"new-{rounds}"), ())])
            rounds += 1
        assert rounds > 1
        open_before = sum(state.status == "open" for state in story.states.values())
        assert (books.counts.done, books.counts.open) == (0, open_before + rounds)
    whole(tmp_path)


def test_a_damaged_run_is_passed_over(tmp_path: Path) -> None:
    kept_for(tmp_path, 5)
    with ledger(tmp_path) as books:
        with books._store.view() as view:
            done = list_runs(view, Filter(statuses=("done",)), limit=10).runs
        books._store.apply([Put(Table.LOG, key_of(done[1].last), b"damaged")])
        assert books.prune(Retention(age_s=1e9, runs=0), NOW_NS) == (len(done) - 1, 1, True)
    report = check_folder(tmp_path)
    assert report.problem_count
    assert not report.fatal


# --- room ------------------------------------------------------------------------------------


def test_the_map_grows_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    with ledger(tmp_path, map_bytes=256 * 1024) as books:
        run = books.begin_epoch(EPOCH, NOW_NS) + 1
        for number in range(100):
            books.commit([(accepted(run + number, value=value(f"{number}" * 20_000)), ())])
        assert books._store.map_bytes() >= 2 * 1024**2
        assert len(books.open) == 100
    whole(tmp_path)
