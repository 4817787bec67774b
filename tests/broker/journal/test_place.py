"""Mirror of broker/journal/place.py."""

import os
from pathlib import Path

import lmdb
import pytest
from journal_stores import filled

from pronghorn.broker.journal.errors import UnusableStoreError
from pronghorn.broker.journal.place import (
    BALLAST_BYTES_MAX,
    BALLAST_NAME,
    DATA_NAME,
    FLOOR_BYTES_MAX,
    DataFolder,
    check_ours,
    has_store,
    sync_folder,
)


def test_a_folder_is_made_and_is_private(tmp_path: Path) -> None:
    folder = DataFolder.hold(tmp_path / "state" / "journal")
    assert (tmp_path / "state" / "journal").stat().st_mode & 0o777 == 0o700
    assert not has_store(folder.path)
    folder.close()


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    folder = DataFolder.hold(tmp_path / "journal")
    with pytest.raises(UnusableStoreError, match=f"in use by process {os.getpid()}: stop it, or"):
        DataFolder.hold(tmp_path / "journal")
    folder.close()
    DataFolder.hold(tmp_path / "journal").close()


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(UnusableStoreError, match="open to other users: chmod 700"):
        DataFolder.hold(tmp_path / "open")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(UnusableStoreError, match=r"belongs to user 12345.*choose another"):
        DataFolder.hold(folder)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir(mode=0o755)  # which nobody is told to change for a journal that it can't have
    (folder / "chapter-1.txt").write_text("years of work")
    with pytest.raises(UnusableStoreError, match=r"holds no journal but chapter-1\.txt"):
        DataFolder.hold(folder)
    assert os.listdir(folder) == ["chapter-1.txt"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = r"can't use .*file for a journal: Not a directory: make it a folder that can be"
    with pytest.raises(UnusableStoreError, match=told):
        DataFolder.hold(tmp_path / "file")
    assert not has_store(tmp_path / "file")


@pytest.mark.parametrize("content", [b"x", b"x" * 8192])
def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path, content: bytes) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / DATA_NAME).write_bytes(content)
    with pytest.raises(UnusableStoreError, match="is no journal"):
        DataFolder.hold(tmp_path)
    assert (tmp_path / DATA_NAME).read_bytes() == content


def test_a_store_of_a_newer_lmdb_is_left_alone(tmp_path: Path) -> None:
    environment = lmdb.open(os.fspath(tmp_path), lib_version=1)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", b"b")
    environment.close()
    with pytest.raises(UnusableStoreError, match="LMDB's data format 3, made by something newer"):
        check_ours(tmp_path)


def test_our_store_is_ours(tmp_path: Path) -> None:
    filled(tmp_path / "journal", records=10)
    check_ours(tmp_path / "journal")
    assert has_store(tmp_path / "journal")


def test_a_ballast_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    folder = DataFolder.hold(tmp_path / "journal")
    assert folder.make_ballast(1_000_000)
    assert folder.make_ballast(1_000_000)
    assert (folder.path / BALLAST_NAME).stat().st_blocks * 512 >= 1_000_000
    assert folder.drop_ballast()
    assert not folder.drop_ballast()
    assert not folder.make_ballast(10**18)
    assert not (folder.path / BALLAST_NAME).exists()
    folder.close()


def test_room_and_floor(tmp_path: Path) -> None:
    folder = DataFolder.hold(tmp_path / "journal")
    disk = os.statvfs(tmp_path)
    assert 0 <= folder.free_bytes <= disk.f_blocks * disk.f_frsize
    ballast, floor = folder.default_sizes()
    assert 0 < ballast <= BALLAST_BYTES_MAX
    assert 0 < floor <= FLOOR_BYTES_MAX
    folder.close()
    sync_folder(tmp_path)
