"""Mirror of broker/wire/keyfiles.py."""

import os
import stat
from pathlib import Path

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError, NotFoundError
from pronghorn.broker.wire.keyfiles import KeyFolder, read_private, write_new
from pronghorn.broker.wire.keys import Entry, PrivateKey, Rights, written_private

PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
ADA = Entry("ada", PUBLIC, Rights())


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "config" / "keys")
    folder.make()
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_and_files_are_their_owners_alone(folder: KeyFolder) -> None:
    assert not folder.has_server
    folder.add_server(PrivateKey(PUBLIC, SECRET))
    folder.add(ADA)
    assert folder.has_server
    assert folder.server() == PrivateKey(PUBLIC, SECRET)
    assert list(folder.entries()) == [ADA]
    assert mode(folder.path) == mode(folder.clients) == 0o700
    assert mode(folder.path / "server.key") == mode(folder.clients / "ada.toml") == 0o600
    assert sorted(os.listdir(folder.clients)) == ["ada.toml"], "nothing half-written stays"


def test_what_is_there_is_not_overwritten(folder: KeyFolder) -> None:
    folder.add(ADA)
    with pytest.raises(InvalidArgumentError, match=r"ada\.toml is there already"):
        folder.add(ADA)
    folder.make()
    assert list(folder.entries()) == [ADA]


def test_removing_a_client_removes_its_private_key_too(folder: KeyFolder) -> None:
    folder.add(ADA)
    write_new(folder.private_file("ada"), "secret")
    folder.remove("ada")
    assert list(folder.entries()) == []
    assert not folder.private_file("ada").exists()
    with pytest.raises(NotFoundError, match="has no client 'ada'"):
        folder.remove("ada")


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path, open_mode: int) -> None:
    file = tmp_path / "a.key"
    write_new(file, written_private(PrivateKey(PUBLIC, SECRET), "Key"))
    file.chmod(open_mode)
    with pytest.raises(InvalidArgumentError, match=f"mode {open_mode:04o}.*chmod 0600") as caught:
        read_private(file)
    assert SECRET not in str(caught.value)


def test_a_folder_that_others_can_change_lets_nobody_in(folder: KeyFolder) -> None:
    folder.add(ADA)
    folder.add_server(PrivateKey(PUBLIC, SECRET))
    for path, open_mode in ((folder.clients, 0o770), (folder.path, 0o702)):
        path.chmod(open_mode)
        [problem] = folder.entries()
        assert isinstance(problem, InvalidArgumentError)
        assert "open to others" in str(problem)
        path.chmod(0o700)
    folder.path.chmod(0o720)
    with pytest.raises(InvalidArgumentError, match="open to others"):
        folder.server()


def test_files_of_another_user_are_refused(folder: KeyFolder) -> None:
    folder.add(ADA)
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    os.chown(folder.clients / "ada.toml", 12345, -1)
    [problem] = folder.entries()
    assert isinstance(problem, InvalidArgumentError)
    assert "another user (uid 12345)" in str(problem)


def test_one_entry_that_can_not_be_read_harms_no_other(folder: KeyFolder) -> None:
    folder.add(ADA)
    files = {
        "bad.toml": b"public = 1",
        "binary.toml": b"\xff\xfe",
        "long.toml": b"#" * 70_000,
    }
    for name, data in files.items():
        (folder.clients / name).write_bytes(data)
        (folder.clients / name).chmod(0o600)
    (folder.clients / "gone.toml").symlink_to("nowhere")
    (folder.clients / "note.txt").write_text("no entry")
    entries = list(folder.entries())
    assert entries[0] == ADA
    assert [type(one) for one in entries[1:]] == [InvalidArgumentError] * 4


def test_what_can_not_be_had_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="can't make"):
        KeyFolder(tmp_path / "file" / "keys").make()
    with pytest.raises(InvalidArgumentError, match="can't read"):
        KeyFolder(tmp_path / "nowhere").server()
    with pytest.raises(InvalidArgumentError, match="can't read"):
        read_private(tmp_path / "none.key")
    with pytest.raises(InvalidArgumentError, match="can't write"):
        write_new(tmp_path / "nowhere" / "a.key", "text")
