"""Where a figure was measured."""

import os
from pathlib import Path

import pytest

from pronghorn.bench.environment import ROOT_VARIABLE, collect, installed_as, repository


def test_it_names_machine_versions_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "rtt", "--rounds", "7"])
    found = collect()
    assert found.command.endswith("rtt --rounds 7")
    assert found.cores == os.cpu_count()
    assert found.cpu
    assert found.load_and_server_share_cores
    assert found.packages["pyzmq"]


def test_the_commit_is_that_of_the_repository_it_was_run_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    assert repository() is None
    assert collect().commit is None
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))  # no repository
    assert repository() == tmp_path
    assert collect().commit is None


def test_an_editable_installation_says_so() -> None:
    assert installed_as() in ("editable tree", "wheel")
