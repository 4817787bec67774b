"""Mirror of broker/journal/room.py; what a small disk does is in tests/fault/test_journal.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.broker.journal.place import BALLAST_NAME, DataFolder
from pronghorn.broker.journal.room import Room
from pronghorn.broker.journal.store import Store

PLENTY = 2**60


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    held = DataFolder.hold(tmp_path / "journal")
    yield held
    held.close()


@pytest.fixture
def store(folder: DataFolder) -> Iterator[Store]:
    opened = Store.open_to_write(folder.path)
    yield opened
    opened.close()


def test_with_room_nothing_lacks_and_there_is_a_reserve(folder: DataFolder, store: Store) -> None:
    room = Room(folder, quota_bytes=PLENTY, ballast_bytes=8192, floor_bytes=0)
    assert room.lacks(store) == ""
    assert (folder.path / BALLAST_NAME).stat().st_size == 8192
    assert room.give_reserve()
    assert not room.give_reserve()
    assert room.lacks(store) == ""
    assert (folder.path / BALLAST_NAME).exists()


def test_a_store_above_its_quota_lacks_room(folder: DataFolder, store: Store) -> None:
    room = Room(folder, quota_bytes=0, ballast_bytes=0, floor_bytes=0)
    assert "bytes, its quota is 0" in room.lacks(store)


def test_a_disk_below_the_floor_lacks_room(folder: DataFolder, store: Store) -> None:
    room = Room(folder, quota_bytes=PLENTY, ballast_bytes=0, floor_bytes=PLENTY)
    assert f"it should be {PLENTY}" in room.lacks(store)


def test_a_disk_without_room_for_the_reserve_lacks_it(folder: DataFolder, store: Store) -> None:
    room = Room(folder, quota_bytes=PLENTY, ballast_bytes=PLENTY, floor_bytes=0)
    assert f"has 0 bytes left besides a reserve of {PLENTY}" in room.lacks(store)
    assert not (folder.path / BALLAST_NAME).exists()


def test_sizes_follow_the_disk_unless_they_are_given(folder: DataFolder, store: Store) -> None:
    room = Room(folder, quota_bytes=PLENTY, ballast_bytes=None, floor_bytes=None)
    if room.lacks(store) == "":
        assert (folder.path / BALLAST_NAME).stat().st_size == folder.default_sizes()[0]
