"""Mirror of broker/journal/upkeep.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from journal_records import Story
from journal_stores import filled

from pronghorn.broker.journal import upkeep
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.errors import DamageError, LostStoreError, UnusableStoreError
from pronghorn.broker.journal.fold import RunState
from pronghorn.broker.journal.place import COMPACTED_NAME, DATA_NAME, WAL_NAME, DataFolder
from pronghorn.broker.journal.store import Store
from pronghorn.broker.journal.upkeep import backup, catch_up, compact, remove_runs
from pronghorn.broker.wire.errors import NotFoundError


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return filled(tmp_path / "journal")


@pytest.fixture
def path(tmp_path: Path, story: Story) -> Path:
    return tmp_path / "journal"


def everything(state: RunState) -> bool:
    return True


def test_a_backup_is_a_store_of_its_own(path: Path, tmp_path: Path, story: Story) -> None:
    size = backup(path, tmp_path / "copy")
    assert size == (tmp_path / "copy" / DATA_NAME).stat().st_size
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700
    report = check_folder(tmp_path / "copy", at_rest=True)
    assert (report.problems, report.records) == ([], len(story.records))


def test_a_backup_is_made_while_somebody_writes(path: Path, tmp_path: Path) -> None:
    folder = DataFolder.hold(path)
    backup(path, tmp_path / "copy")
    folder.close()


def test_a_backup_takes_the_place_of_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableStoreError, match=r"can't make .* File exists"):
        backup(path, tmp_path)
    with pytest.raises(UnusableStoreError, match="can't make"):
        backup(path, tmp_path / "no" / "where")


def test_compaction_makes_it_small_and_changes_nothing(path: Path, story: Story) -> None:
    removed = remove_runs(path, everything)
    assert removed == sum(state.status != "open" for state in story.states.values())
    before = check_folder(path)
    sizes = compact(path)
    assert sizes.after < sizes.before
    assert sizes.after == (path / DATA_NAME).stat().st_size
    after = check_folder(path, at_rest=True)
    assert after.problems == []
    assert (after.runs, after.records) == (before.runs, before.records)
    assert not (path / COMPACTED_NAME).exists()
    assert remove_runs(path, everything) == 0
    assert compact(path).after <= sizes.after


def test_nothing_is_changed_while_somebody_writes(path: Path) -> None:
    folder = DataFolder.hold(path)
    in_use = f"in use by process {os.getpid()}"
    with pytest.raises(UnusableStoreError, match=in_use):
        compact(path)
    with pytest.raises(UnusableStoreError, match=in_use):
        remove_runs(path, everything)
    folder.close()


def test_the_file_is_not_exchanged_under_a_reader(path: Path) -> None:
    code = """
import sys; from pathlib import Path
from pronghorn.broker.journal.store import Store
store = Store.open_to_read(Path(sys.argv[1]))
with store.view():
    print(flush=True); input()
"""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(UnusableStoreError, match=f"read by process {reader.pid}: try again"):
            compact(path)
        reader.send_signal(signal.SIGKILL)
    assert compact(path).after
    store = Store.open_to_read(path)
    assert store.other_readers() == []
    store.close()


def test_a_compaction_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: Store, descriptor: int, *, compact: bool) -> None:
        os.write(descriptor, b"a part")
        raise LostStoreError("the disk is full")

    content = (path / DATA_NAME).read_bytes()
    monkeypatch.setattr(Store, "copy_to", fail)
    with pytest.raises(LostStoreError):
        compact(path)
    assert (path / DATA_NAME).read_bytes() == content
    assert not (path / COMPACTED_NAME).exists()


@pytest.mark.parametrize("absent", ["gone", "empty"])
def test_what_is_not_there_is_told(tmp_path: Path, absent: str) -> None:
    (tmp_path / "empty").mkdir(mode=0o700)
    for work in (
        lambda: backup(tmp_path / absent, tmp_path / "copy"),
        lambda: compact(tmp_path / absent),
        lambda: remove_runs(tmp_path / absent, everything),
    ):
        with pytest.raises(NotFoundError, match=r"there is no journal in .*: say where it is"):
            work()
    assert not (tmp_path / "gone").exists()


# --- what a writer has left in its log -----------------------------------------------------------


@pytest.fixture
def behind(tmp_path: Path) -> Story:
    return filled(tmp_path / "behind", logged=20)


def test_a_store_catches_up_with_its_log(behind: Story, tmp_path: Path) -> None:
    path = tmp_path / "behind"
    report = check_folder(path, at_rest=True)
    assert (report.problems, report.logged) == ([], 20)
    assert catch_up(path) == 0
    report = check_folder(path, at_rest=True)
    assert (report.problems, report.logged, report.records) == ([], 0, len(behind.records))
    assert catch_up(path) == 0


def test_a_store_that_somebody_holds_catches_up_by_itself(
    behind: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CATCH_UP_S", 0.1)
    path = tmp_path / "behind"
    folder = DataFolder.hold(path)
    assert catch_up(path) == 20
    folder.close()
    assert catch_up(path) == 0


def test_a_damaged_log_is_told(behind: Story, tmp_path: Path) -> None:
    path = tmp_path / "behind"
    frame = (path / WAL_NAME).read_bytes()
    for damaged in (bytes(100) + frame, frame[:30] + b"?" + frame[31:] + frame):
        (path / WAL_NAME).write_bytes(damaged)
        (problem,) = check_folder(path, at_rest=True).problems
        assert "wal: record " in problem
    with pytest.raises(DamageError):
        catch_up(path)


def test_a_backup_has_what_the_store_can_not_take_in(
    behind: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CATCH_UP_S", 0.1)
    path = tmp_path / "behind"
    folder = DataFolder.hold(path)  # as a writer does that has stopped, or has no room
    size = backup(path, tmp_path / "copy")
    folder.close()
    assert check_folder(path, at_rest=True).logged == 20
    assert {each.name for each in (tmp_path / "copy").iterdir()} == {DATA_NAME}
    assert size == (tmp_path / "copy" / DATA_NAME).stat().st_size
    report = check_folder(tmp_path / "copy", at_rest=True)
    assert (report.problems, report.records) == ([], len(behind.records))


@pytest.mark.parametrize("how", ["backup", "compact", "remove"])
def test_what_is_done_to_a_store_is_done_to_all_of_it(
    behind: Story, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "behind"
    if how == "backup":
        backup(path, tmp_path / "copy")
        path = tmp_path / "copy"
    elif how == "compact":
        compact(path)
    else:
        remove_runs(path, lambda state: False)
    report = check_folder(path, at_rest=True)
    assert (report.problems, report.records) == ([], len(behind.records))
