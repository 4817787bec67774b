"""The runtime folder: whom it lets in, what it removes, and who comes at the same time."""

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.broker.folder import (
    LOCK_NAME,
    RuntimeFolder,
    make_shared,
    remove_files,
    remove_owned,
    remove_stale,
)
from pronghorn.broker.wire.errors import InvalidArgumentError

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root" / "shop"


@pytest.fixture
def folder(path: Path) -> Iterator[RuntimeFolder]:
    folder = RuntimeFolder(path)
    yield folder
    folder.remove()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_root_are_made_for_their_user_alone(folder: RuntimeFolder, path: Path) -> None:
    assert (mode(path.parent), mode(path), mode(path / LOCK_NAME)) == (0o700, 0o700, 0o600)
    assert (path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_held_folder_is_refused_with_its_holder(folder: RuntimeFolder, path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        RuntimeFolder(path)
    assert str(caught.value) == (
        f"another broker (pid {os.getpid()}) serves in {path}: stop it, or choose another --name"
    )


def test_a_holder_that_wrote_nothing_is_unknown(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True)
    path.parent.chmod(0o700)
    with open(path / LOCK_NAME, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidArgumentError, match=r"another broker \(pid unknown\)"):
            RuntimeFolder(path)


def test_a_folder_is_free_after_its_removal(path: Path) -> None:
    for _ in range(2):
        folder = RuntimeFolder(path)
        (path / "broker.sock").touch()
        (path / "values").mkdir()
        (path / "values" / "one").touch()
        folder.remove()
        assert not path.exists()


def test_what_a_killed_holder_left_is_taken_over(path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from pronghorn.broker.folder import RuntimeFolder\n"
        "folder = RuntimeFolder(pathlib.Path(sys.argv[1]))\n"
        "(folder.path / 'broker.sock').touch()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert (path / LOCK_NAME).exists()
    folder = RuntimeFolder(path)
    assert (path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    folder.remove()
    assert not path.exists()


def test_a_process_that_inherited_the_lock_holds_it_on(path: Path) -> None:
    folder = RuntimeFolder(path)
    (descriptor,) = folder.descriptors
    copy = os.dup(descriptor)
    os.close(descriptor)  # as the kernel does when the first holder is killed
    with pytest.raises(InvalidArgumentError, match="another broker"):
        RuntimeFolder(path)
    remove_files(folder.files)
    os.close(copy)
    assert not path.exists()


def test_lock_that_was_removed_while_it_was_waited_for_is_no_lock(
    folder: RuntimeFolder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not removed:  # between our open and our lock the holder goes
            removed.append(True)
            folder.remove()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    second = RuntimeFolder(path)
    assert (path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    second.remove()


def test_removal_leaves_a_newcomer_alone(folder: RuntimeFolder, path: Path) -> None:
    (path / LOCK_NAME).unlink()  # the last but one step of a removal
    newcomer = RuntimeFolder(path)
    with pytest.raises(OSError, match="not empty"):
        path.rmdir()  # the last one
    newcomer.remove()


@pytest.mark.parametrize("found", [True, False], ids=["found", "checked"])
def test_a_root_that_the_last_of_the_others_removes_is_made_again(
    found: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that ended while another began had that one go without memory for large values."""
    path.parent.mkdir(mode=0o700)
    real, removed = os.mkdir, []

    def mkdir(folder: Path, mode: int) -> None:
        # The root goes between our attempt to make it and our look at it, or right after that.
        if not (found or removed) and folder == path:
            removed.append(path.parent.rmdir())
        try:
            real(folder, mode)
        except FileExistsError:
            if found and not removed:
                removed.append(path.parent.rmdir())
            raise

    monkeypatch.setattr(os, "mkdir", mkdir)
    folder = RuntimeFolder(path)
    assert removed
    assert (mode(path.parent), mode(path)) == (0o700, 0o700)
    folder.remove()


@pytest.mark.parametrize("rights", [0o755, 0o770, 0o701])
def test_a_folder_open_to_others_is_refused(path: Path, rights: int) -> None:
    path.mkdir(parents=True)
    path.parent.chmod(0o700)
    path.chmod(rights)
    with pytest.raises(InvalidArgumentError) as caught:
        RuntimeFolder(path)
    assert str(caught.value) == f"{path} is open to other users: chmod 700 {path}"
    path.chmod(0o700)
    path.parent.chmod(rights)
    with pytest.raises(InvalidArgumentError, match="is open to other users"):
        RuntimeFolder(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_folder_of_somebody_else_is_refused(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True)
    path.parent.chmod(0o700)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(InvalidArgumentError, match=f"{path} belongs to user {NOBODY}"):
        RuntimeFolder(path)


def test_a_link_is_no_folder(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.symlink_to(tmp_path)
    with pytest.raises(InvalidArgumentError, match=f"{path} is no folder"):
        RuntimeFolder(path)


def test_a_file_in_the_way_is_named(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()
    with pytest.raises(InvalidArgumentError, match=f"{path} is no folder"):
        RuntimeFolder(path)


def test_a_root_that_can_not_be_made_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="can't use the runtime folder /proc/nowhere/x"):
        RuntimeFolder(Path("/proc/nowhere/x"))


# --- sockets outside ---------------------------------------------------------------------------


def test_a_socket_outside_is_locked_and_removed_with_its_lock(path: Path, tmp_path: Path) -> None:
    socket, lock = tmp_path / "x.sock", tmp_path / "x.sock.lock"
    stream = tmp_path / "x.sock.stream"
    folder = RuntimeFolder(path)
    folder.claim_socket(socket)
    socket.touch()
    stream.touch()
    assert mode(lock) == 0o600
    assert folder.files == (str(socket), str(stream), str(lock), str(path))
    assert len(folder.descriptors) == 2
    other = RuntimeFolder(path.with_name("other"))
    with pytest.raises(InvalidArgumentError, match=rf"another broker .* serves in {tmp_path}"):
        other.claim_socket(socket)
    other.remove()
    assert socket.exists()
    folder.remove()
    assert list(tmp_path.iterdir()) == [path.parent]


def test_a_socket_where_no_file_can_be_is_named(folder: RuntimeFolder) -> None:
    with pytest.raises(InvalidArgumentError, match=r"can't make the lock file of /nowhere/x\.sock"):
        folder.claim_socket(Path("/nowhere/x.sock"))


def test_a_link_put_in_the_place_of_a_lock_file_is_not_followed(
    folder: RuntimeFolder, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("do not empty this")
    (tmp_path / "x.sock.lock").symlink_to(precious)
    with pytest.raises(InvalidArgumentError, match="can't make the lock file"):
        folder.claim_socket(tmp_path / "x.sock")
    assert precious.read_text() == "do not empty this"


# --- what is stale -----------------------------------------------------------------------------


def ended_pid() -> int:
    """Return the id of a process that has just ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_folders_of_ended_processes_are_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    pid = ended_pid()
    stale = tmp_path / f"pool-{pid}-ab12"
    stale.mkdir(mode=0o700)
    (stale / "broker.sock").touch()
    kept = [
        tmp_path / f"pool-{os.getpid()}-cd34",  # just being made, not locked yet
        tmp_path / f"shop-{pid}-ab12",
        tmp_path / "pool-of-somebody",
        tmp_path / f"pool-{pid}",
    ]
    for one in kept:
        one.mkdir(mode=0o700)
    remove_stale(tmp_path, "pool-")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_folder_whose_process_id_another_has_by_now_is_removed(tmp_path: Path) -> None:
    """In a container that is started again the same programs have the same ids."""
    tmp_path.chmod(0o700)
    stale = tmp_path / f"pool-{os.getpid()}-ab12"
    os.close(RuntimeFolder(stale).descriptors[0])  # as the kernel does when its holder is killed
    held = RuntimeFolder(tmp_path / f"pool-{os.getpid()}-cd34")
    remove_stale(tmp_path, "pool-")
    assert list(tmp_path.iterdir()) == [held.path]
    held.remove()


def test_folders_that_are_held_stay_even_if_their_process_ended(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = RuntimeFolder(tmp_path / f"pool-{ended_pid()}-ab12")
    remove_stale(tmp_path, "pool-")
    assert folder.path.exists()
    folder.remove()


def test_a_root_that_is_not_there_holds_nothing_stale(tmp_path: Path) -> None:
    remove_stale(tmp_path / "nowhere", "pool-")


def test_a_root_that_can_not_be_listed_is_left_to_the_next(tmp_path: Path) -> None:
    (tmp_path / f"pool-{ended_pid()}-ab12").mkdir(mode=0o700)
    script = (
        "import os, pathlib, resource, sys\n"
        "from pronghorn.broker.folder import remove_stale\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "remove_stale(pathlib.Path(sys.argv[1]), 'pool-')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_removal_passes_over_what_is_gone(tmp_path: Path) -> None:
    present = tmp_path / "present"
    present.touch()
    remove_files([str(tmp_path / "gone"), str(present)])
    assert not present.exists()


def test_the_folder_of_large_values_is_in_memory(
    folder: RuntimeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("pronghorn.broker.wire.places.SHARED_MEMORY", str(memory))
    made, path = make_shared(folder)
    assert made is not None
    assert path == str(made.path)
    assert made.path.parent == memory / f"pronghorn-{os.getuid()}"
    assert made.path.name.startswith(f"{os.getpid()}-")
    assert mode(made.path) == 0o700
    (made.path / "1-value").touch()
    remove_stale(made.path.parent, "")  # this process lives, and holds it
    assert (made.path / "1-value").exists()
    made.remove()
    assert list(made.path.parent.iterdir()) == []


def test_that_of_a_tree_that_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "memory"
    root.mkdir(mode=0o700)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = root / f"{ended.pid}-abc"
    left.mkdir(mode=0o700)
    (left / "1-value").touch()
    remove_stale(root, "")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("why", ["none", "open to others", "no room"])
def test_without_memory_it_is_below_the_runtime_folder(
    why: str, folder: RuntimeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    monkeypatch.setattr("pronghorn.broker.wire.places.SHARED_MEMORY", str(memory))
    if why != "none":
        memory.mkdir()
        root = memory / f"pronghorn-{os.getuid()}"
        root.touch() if why == "no room" else root.mkdir(mode=0o755)
    made, path = make_shared(folder)
    assert made is None
    assert path == str(folder.path / "shared")
    assert mode(folder.path / "shared") == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_where_none_can_be_made_there_is_none(
    folder: RuntimeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronghorn.broker.wire.places.SHARED_MEMORY", "/nothing")
    (folder.path / "shared").touch()
    assert make_shared(folder) == (None, "")


def test_files_of_a_process_that_has_ended_are_removed(tmp_path: Path) -> None:
    for name in ("12-a", "12-b", "123-c", "lock"):
        (tmp_path / name).touch()
    remove_owned(str(tmp_path), 12)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["123-c", "lock"]
    remove_owned("", 12)
    remove_owned(str(tmp_path / "gone"), 12)
