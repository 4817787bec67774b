"""Files of large values, and what is kept of them."""

import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.references import Reference
from pronghorn.worker.referred import ABSENT
from pronghorn.worker.shared import KeptValues, SharedFolder, SharedValues, absent, is_absent


def reference(number: int = 0, length: int = 5) -> Reference:
    return Reference(os.getpid(), number.to_bytes(16, "big"), length)


@pytest.fixture
def folder(tmp_path: Path) -> SharedFolder:
    return SharedFolder(str(tmp_path))


def test_a_value_is_written_for_its_user_alone_and_read(
    folder: SharedFolder, tmp_path: Path
) -> None:
    folder.write(reference(), b"hello")
    path = tmp_path / reference().file_name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mapped = folder.open(reference())
    assert folder.has(reference())
    folder.remove(reference())
    folder.remove(reference())
    assert not folder.has(reference())
    assert bytes(mapped) == b"hello"  # who has it keeps it
    mapped.close()


def test_nothing_is_written_twice_or_nowhere(folder: SharedFolder, tmp_path: Path) -> None:
    folder.write(reference(), b"hello")
    with pytest.raises(FileExistsError):
        folder.write(reference(), b"other")
    with pytest.raises(OSError, match="No such file"):
        SharedFolder(str(tmp_path / "gone")).write(reference(), b"hello")


def test_what_there_is_no_room_for_leaves_nothing(folder: SharedFolder, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            folder.write(reference(length=10_000), bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_only_a_file_of_that_name_owner_and_length_is_read(
    folder: SharedFolder, tmp_path: Path
) -> None:
    values = SharedValues(folder)

    def refused(why: str, one: Reference) -> None:
        with pytest.raises(InvalidArgumentError, match=why) as error:
            values.content(one)
        assert error.value.retryable

    refused("No such file", reference())
    folder.write(reference(1), b"hello")
    refused("has 5 bytes", reference(1, 4))
    refused("has 5 bytes", reference(1, 1 << 63))
    (tmp_path / reference(2).file_name).symlink_to(tmp_path / reference(1).file_name)
    refused("symbolic links", reference(2))
    os.mkfifo(tmp_path / reference(3).file_name)
    refused("somebody else's", reference(3))
    (tmp_path / reference(4).file_name).mkdir()
    refused("somebody else's", reference(4))
    (tmp_path / reference(5).file_name).touch()
    refused("has 0 bytes", reference(5, 0))
    if os.getuid() == 0:
        folder.write(reference(6), b"hello")
        os.chown(tmp_path / reference(6).file_name, 65534, 65534)
        refused("somebody else's", reference(6))
    assert bytes(values.content(reference(1))) == b"hello"


def test_a_process_without_a_folder_takes_none() -> None:
    with pytest.raises(InvalidArgumentError, match="takes none"):
        SharedValues().content(reference())


def test_that_error_is_told_from_others() -> None:
    error = absent(reference(), OSError("gone"))
    told = {"code": error.code, "outcome": "not_started", "retryable": True}
    assert is_absent(told)
    for other in (None, 5, {}, {**told, "code": "NODE_ERROR"}, {**told, "retryable": False}):
        assert not is_absent(other)


def test_those_used_last_are_kept() -> None:
    kept = KeptValues(count_max=3, bytes_max=20)
    for number in range(3):
        kept.keep(reference(number), "form", number)
    assert kept.known(reference(0), "form") == 0
    assert kept.known(reference(0), "other") is ABSENT
    kept.keep(reference(3), "form", 3)
    assert [kept.known(reference(n), "form") is ABSENT for n in range(4)] == [
        *(False, True, False, False)
    ]
    kept.keep(reference(4, 12), "form", 4)  # 17 bytes, with the one used last
    assert kept.references() == {reference(3), reference(4, 12)}
    kept.keep(reference(5, 21), "form", 5)  # too large alone
    assert len(kept) == 2
    kept.forget({reference(3)})
    assert kept.references() == {reference(4, 12)}


def test_what_belongs_to_ended_runs_is_forgotten(folder: SharedFolder) -> None:
    begun = 0

    def on_first() -> None:
        nonlocal begun
        begun += 1

    values = SharedValues(folder, on_first=on_first)
    for number in range(2):
        folder.write(reference(number), b"hello")
        values.keep(reference(number), str, "hello")
    assert begun == 1
    assert values.forget_gone()
    folder.remove(reference(0))
    assert values.forget_gone()
    assert values.references() == {reference(1)}
    folder.remove(reference(1))
    assert not values.forget_gone()
    assert len(values) == 0
    assert not SharedValues().forget_gone()


def test_threads_may_use_it_at_once(folder: SharedFolder) -> None:
    kept = KeptValues(count_max=2)
    errors: list[BaseException] = []

    def use(first: int) -> None:
        try:
            for number in range(500):
                one = reference((first + number) % 5)
                assert kept.known(one, "f") in (ABSENT, one.token)
                kept.keep(one, "f", one.token)
                kept.forget({reference(number % 5)})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(kept) <= 2
