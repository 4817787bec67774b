"""Waiting for a file to appear."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pronghorn.bench.inotify import ChildGoneError, watching


def test_a_file_made_after_the_watch_is_seen(tmp_path: Path) -> None:
    with watching(tmp_path) as watch:
        (tmp_path / "other").touch()
        (tmp_path / "awaited").touch()
        watch.wait_for("awaited", maker=os.getpid(), timeout_s=5.0)


def test_a_file_moved_in_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "made elsewhere").touch()
    with watching(folder) as watch:
        (tmp_path / "made elsewhere").rename(folder / "awaited")
        watch.wait_for("awaited", maker=os.getpid(), timeout_s=5.0)


def test_the_wait_ends(tmp_path: Path) -> None:
    with watching(tmp_path) as watch, pytest.raises(TimeoutError, match="no awaited"):
        watch.wait_for("awaited", maker=os.getpid(), timeout_s=0.0)


def test_the_end_of_the_maker_ends_the_wait(tmp_path: Path) -> None:
    with (
        watching(tmp_path) as watch,
        subprocess.Popen([sys.executable, "-c", "pass"]) as maker,
        pytest.raises(ChildGoneError, match="ended without making awaited"),
    ):
        watch.wait_for("awaited", maker=maker.pid, timeout_s=20.0)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="inotify_add_watch"), watching(tmp_path / "none"):
        pytest.fail("must not get here")
