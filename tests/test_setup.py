"""What scripts/_setup says on machines that lack something; that it works is shown by this run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "cat", "grep", "mkdir", "rm")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Make a folder to be all of PATH: a few tools, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"these tests need {tool}"
        (folder / tool).symlink_to(found)
    return folder


def add_python(machine: Path, name: str, lines: str) -> None:
    path = machine / name
    path.write_text(f'#!{machine / "bash"}\n{lines}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)


def set_up(machine: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = f'source scripts/_setup; setup_venv "{folder}" editable dev'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=os.environ | {"PATH": str(machine), "PYTHON": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_machine_without_python_is_told_what_to_install(machine: Path, tmp_path: Path) -> None:
    done = set_up(machine, tmp_path / "venv")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer and found none" in done.stderr


def test_old_python_is_passed_over(machine: Path, tmp_path: Path) -> None:
    add_python(machine, "python3", "exit 1 # what a Python before 3.11 answers")
    done = set_up(machine, tmp_path / "venv")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer and found none" in done.stderr


def test_python_without_ensurepip_is_told_what_to_install(machine: Path, tmp_path: Path) -> None:
    add_python(machine, "python3.12", 'if [[ "$*" == *ensurepip* ]]; then exit 1; fi')
    done = set_up(machine, tmp_path / "venv")
    assert done.returncode == 1
    assert "python3.12 can't make a virtual environment" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_folder_that_is_no_environment_is_left_alone(machine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    done = set_up(machine, folder)
    assert done.returncode == 1
    assert "is in the way" in done.stderr
    assert (folder / "thesis.txt").read_text() == "years of work"
