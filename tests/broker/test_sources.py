"""Mirror of broker/sources.py: what counts as a change of a file, by a real file system."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.broker.sources import FolderWatch, SourceWatch

PATIENCE_MS = 20_000


@pytest.fixture
def watch() -> Iterator[SourceWatch]:
    watch = SourceWatch()
    yield watch
    watch.close()


def changed(watch: SourceWatch) -> bool:
    """Wait for events and tell whether they are changes."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(PATIENCE_MS), "the kernel tells nothing"
    return watch.have_changed()


def test_files_that_are_written_replaced_removed_and_there_again(
    watch: SourceWatch, tmp_path: Path
) -> None:
    file = tmp_path / "nodes.py"
    file.write_text("1")
    watch.watch([str(file)])
    assert not watch.have_changed()
    file.write_text("2")
    assert changed(watch)
    (tmp_path / "new.py").write_text("3")
    assert not changed(watch), "it is another file"
    os.replace(tmp_path / "new.py", file)
    assert changed(watch)
    file.unlink()
    assert changed(watch)
    file.write_text("4")
    assert changed(watch)
    assert not watch.have_changed()


def test_more_files_are_watched_beside_those_before(watch: SourceWatch, tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "one.py", tmp_path / "b" / "two.py"
    for file in (one, two):
        file.parent.mkdir()
        file.write_text("1")
    watch.watch([str(one)])
    watch.watch([str(two), str(tmp_path / "nowhere" / "three.py")])
    one.write_text("2")
    assert changed(watch)
    two.write_text("2")
    assert changed(watch)


def test_reading_is_no_change(watch: SourceWatch, tmp_path: Path) -> None:
    file = tmp_path / "nodes.py"
    file.write_text("1")
    watch.watch([str(file)])
    file.read_text()
    assert not watch.have_changed()


def test_any_change_in_a_folder_is_seen_and_that_it_is_there_again(tmp_path: Path) -> None:
    folder = tmp_path / "keys" / "clients"
    folder.parent.mkdir()
    watch = FolderWatch([folder.parent, folder])
    poll = select.poll()
    poll.register(watch, select.POLLIN)

    def seen() -> bool:
        happened = bool(poll.poll(PATIENCE_MS))
        watch.take()
        return happened and not poll.poll(0)

    assert not poll.poll(0)
    folder.mkdir()
    assert seen()
    for change in (
        lambda: (folder / "a").write_text("1"),
        lambda: (folder / "a").chmod(0o600),
        lambda: os.replace(folder / "a", folder / "b"),
        lambda: (folder / "b").unlink(),
        folder.rmdir,
        folder.mkdir,
        lambda: (folder / "c").touch(),
    ):
        change()
        assert seen()
    watch.close()
