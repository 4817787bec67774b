"""Mirror of bench/peers/install.py; nothing is fetched."""

import sys
from pathlib import Path

import pytest

from pronghorn.bench.children import ChildError
from pronghorn.bench.peers import install
from pronghorn.bench.peers.catalog import PeerInfo
from pronghorn.bench.peers.install import environment_of, server_version, version_of

ITSELF = PeerInfo(name="it", label="It", module="executor")
NEEDY = PeerInfo(name="needy", label="Needy", module="x", server="no-server-of-that-name")
OTHER = PeerInfo(name="other", label="Other", module="x", requires=("msgspec",))


def test_one_that_requires_nothing_runs_here(tmp_path: Path) -> None:
    assert environment_of(ITSELF, tmp_path) == Path(sys.executable)
    assert version_of(ITSELF, Path(sys.executable)).startswith("Python 3.")
    assert server_version(ITSELF) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="no-server-of-that-name is not installed"):
        environment_of(NEEDY, tmp_path)


def test_an_environment_is_made_once_and_anew_when_its_needs_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "lib" / "python3.11" / "site-packages").mkdir(parents=True)

    monkeypatch.setattr(install, "_run", run)
    python = environment_of(OTHER, tmp_path)
    assert python == tmp_path / "other" / "bin" / "python"
    assert [command[2] for command in commands] == ["venv", "pip"]
    linked = tmp_path / "other/lib/python3.11/site-packages/pronghorn/bench"
    assert (linked / "subject.py").exists()
    environment_of(OTHER, tmp_path)
    assert len(commands) == 2
    changed = PeerInfo(name="other", label="Other", module="x", requires=("msgspec", "more"))
    environment_of(changed, tmp_path)
    assert len(commands) == 4


def test_what_can_not_be_installed_is_told_with_the_reason() -> None:
    with pytest.raises(ChildError, match="can't be installed: that is why"):
        install._run([sys.executable, "-c", "import sys; sys.exit('first\\nthat is why')"])


def test_versions_of_all_that_it_requires_are_told(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    for name, version in (("one", "1.2"), ("two", "3.4")):
        described = (
            tmp_path / "lib" / "python3.11" / "site-packages" / f"{name}-{version}.dist-info"
        )
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    both = PeerInfo(name="b", label="B", module="x", requires=("one[extra]", "two", "none"))
    assert version_of(both, python) == "1.2, two 3.4, none unknown"
