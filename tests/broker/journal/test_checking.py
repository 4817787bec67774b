"""Mirror of broker/journal/checking.py: whatever is damaged is told, and the process lives."""

import os
import shutil
from pathlib import Path
from random import Random

import msgspec
import pytest
from journal_records import Story
from journal_stores import filled, ledger

from pronghorn.broker.journal.checking import PROBLEMS_MAX, Report, check_folder, check_in_child
from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.place import DATA_NAME
from pronghorn.broker.journal.reading import events, find_state, value_of
from pronghorn.broker.journal.record import WithValue, key_of
from pronghorn.broker.journal.rows import Counts, Pruned, Table, Uses, sealed_row
from pronghorn.broker.journal.store import Change, Delete, Put, Store

SEEDS = range(8)
LMDBS_OWN = {table.value for table in Table}  # entries of the database that META is in


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return filled(tmp_path / "whole")


@pytest.fixture
def path(tmp_path: Path, story: Story) -> Path:
    return tmp_path / "whole"


def change(path: Path, *changes: Change) -> None:
    store = Store.open_to_write(path)
    store.apply(changes)
    store.close()


def test_a_whole_store_has_no_problems(path: Path, story: Story) -> None:
    for report in (check_folder(path, at_rest=True), check_in_child(path)):
        assert report.problems == []
        assert report.complete
        assert not report.fatal
        assert (report.records, report.runs) == (len(story.records), len(story.states))
        assert report.values
    assert check_in_child(path, seconds=10.0).records == len(story.records)


def test_an_empty_store_is_whole(tmp_path: Path) -> None:
    with ledger(tmp_path / "empty"):
        pass
    assert check_folder(tmp_path / "empty").problems == []


def test_with_little_time_what_matters_most_is_looked_at(
    path: Path, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronghorn.broker.journal.checking._LOOK_AT_CLOCK", 10)
    report = check_folder(path, seconds=0.0)
    assert not report.complete
    assert report.records < len(story.records)
    assert report.runs == sum(state.status == "open" for state in story.states.values())


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    report = check_in_child(tmp_path)
    assert report.fatal
    assert "can't open the journal" in report.problems[0]


def test_many_problems_are_counted_and_the_first_are_told() -> None:
    report = Report()
    for number in range(PROBLEMS_MAX + 5):
        report.note(number)
    assert (len(report.problems), report.problem_count) == (PROBLEMS_MAX, PROBLEMS_MAX + 5)


def chosen(story: Story, *statuses: str) -> int:
    return next(run for run, state in story.states.items() if state.status in statuses)


@pytest.mark.parametrize("table", [Table.LOG, Table.OPEN, Table.DONE, Table.KEYS, Table.VALUES])
def test_a_row_that_is_gone_is_told(path: Path, story: Story, table: Table) -> None:
    store = Store.open_to_read(path)
    with store.view() as view:
        keys = [key for key, _ in view.walk(table)]
    store.close()
    change(path, Delete(table, Random(1).choice(keys)))
    assert check_folder(path).problem_count


@pytest.mark.parametrize("table", list(Table))
def test_a_row_that_was_changed_is_told(path: Path, table: Table) -> None:
    store = Store.open_to_read(path)
    with store.view() as view:
        rows = [row for row in view.walk(table) if row[0] not in LMDBS_OWN or table != Table.META]
    store.close()
    key, sealed = Random(1).choice(rows)
    change(path, Put(table, key, sealed[:-1] + bytes([sealed[-1] ^ 1])))
    problems = check_folder(path).problems
    assert any("the checksum is wrong" in problem for problem in problems)


def test_rows_that_are_whole_and_wrong_are_told(path: Path, story: Story) -> None:
    done = chosen(story, "done")
    state = msgspec.structs.replace(story.states[done], run_ns=12345)
    store = Store.open_to_read(path)
    with store.view() as view:
        digest, _ = next(view.walk(Table.USES))
        key, _ = next(view.walk(Table.KEYS))
    store.close()
    wrong = {
        "lead to another state": (Table.DONE, key_of(done), state),
        "is used": (Table.USES, digest, Uses(99, 5)),
        "a key leads to": (Table.KEYS, key, done),
        "records: 1 are told of": (Table.META, b"counts", Counts(records=1)),
    }
    for problem, (table, key, row) in wrong.items():
        copy = path.with_name(f"{table.name}-copy")
        shutil.copytree(path, copy)
        change(copy, Put(table, key, sealed_row(table, key, row)))
        assert problem in "\n".join(check_folder(copy).problems)


def test_damage_to_ended_runs_alone_is_not_fatal(path: Path, story: Story) -> None:
    done = story.states[chosen(story, "done")]
    change(path, Put(Table.LOG, key_of(done.last), b"damaged"))
    report = check_folder(path)
    assert report.problem_count
    assert not report.fatal
    open_run = story.states[chosen(story, "open")]
    change(path, Put(Table.LOG, key_of(open_run.last), b"damaged"))
    assert check_folder(path).fatal
    assert check_folder(path, seconds=0.0).fatal


def test_pruned_row_that_can_not_be_read_is_told(path: Path) -> None:
    change(path, Put(Table.META, b"pruned", sealed_row(Table.META, b"pruned", Pruned())))
    assert check_folder(path).problems == []
    change(path, Put(Table.META, b"pruned", sealed_row(Table.META, b"pruned", "x")))
    assert check_folder(path).fatal


# --- damage to the file ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.02, 0.1, 0.5])
def test_a_file_that_was_cut_off_is_told_and_ends_nobody(path: Path, share: float) -> None:
    size = (path / DATA_NAME).stat().st_size
    os.truncate(path / DATA_NAME, int(share * size))
    report = check_in_child(path)
    assert report.fatal
    assert report.problems


def read_all(path: Path, story: Story) -> int:
    """Read every run of a damaged store: what is given out is right. Returns how much was not."""
    failed = 0
    store = Store.open_to_read(path)
    for run, state in story.states.items():
        try:
            with store.view() as view:
                found = find_state(view, run)
                if found is None:
                    failed += 1
                    continue
                assert found == state
                told = [(number, type(each)) for number, each in story.records if each.run == run]
                read = events(view, found)
                assert [(number, type(each)) for number, each in read] == told
                for number, record in read:
                    if isinstance(record, WithValue):
                        given = story.records[number - story.records[0][0]][1]
                        content = bytes(value_of(view, record).content)
                        assert content == bytes(given.value)  # type: ignore[union-attr]
        except DamageError:
            failed += 1
    store.close()
    return failed


def damage(file: Path, random: Random) -> None:
    """Flip a bit, or overwrite a page with zeros or with another."""
    content = bytearray(file.read_bytes())
    pages = len(content) // 4096
    kind = random.random()
    if kind < 0.7:
        content[random.randrange(8192, len(content))] ^= 1 << random.randrange(8)
    else:
        target = random.randrange(2, pages) * 4096
        source = random.randrange(2, pages) * 4096
        page = bytes(4096) if kind < 0.85 else bytes(content[source : source + 4096])
        content[target : target + 4096] = page
    file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_damage_is_told_or_does_no_harm_and_nothing_wrong_is_read(
    path: Path, story: Story, seed: int
) -> None:
    random = Random(seed)
    copy = path.with_name("copy")
    copy.mkdir(mode=0o700)
    for _ in range(12):
        shutil.copy(path / DATA_NAME, copy / DATA_NAME)
        damage(copy / DATA_NAME, random)
        report = check_in_child(copy)
        pid = os.fork()
        if pid == 0:  # reading a damaged file may end a process
            try:
                os._exit(min(read_all(copy, story), 100))
            except AssertionError:
                os._exit(111)
            except BaseException:
                os._exit(110)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status != 111, "something wrong was read"
        if report.problem_count == 0:
            assert status == 0, "what can't be read was not told of"
