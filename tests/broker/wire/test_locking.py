"""Mirror of broker/wire/locking.py; what a broker does with its lock is in test_folder.py."""

import os
from pathlib import Path

import pytest

from pronghorn.broker.wire.locking import LockHeldError, take_lock


def test_the_file_tells_who_holds_it(tmp_path: Path) -> None:
    descriptor = take_lock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert not os.get_inheritable(descriptor)
    with pytest.raises(LockHeldError) as held:
        take_lock(tmp_path / "lock")
    assert held.value.holder == str(os.getpid())
    os.close(descriptor)
    os.close(take_lock(tmp_path / "lock"))


def test_what_a_longer_number_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999999999999\n")
    os.close(take_lock(tmp_path / "lock"))
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_lock(tmp_path / "gone" / "lock")
