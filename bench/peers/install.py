"""Makes the environment of each peer, once. An IO shell.

An environment has what the peer requires, msgspec, and a link to the benchmarks that run. It is
made anew when what is required changes. What can't be had is said, never replaced.

Mirror: tests/bench/peers/test_install.py.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..children import ChildError
from .catalog import PeerInfo

_INSTALL_TIMEOUT_S = 900.0
_BENCH = Path(__file__).resolve().parents[1]


def environment_of(peer: PeerInfo, root: Path) -> Path:
    """Make the environment of a peer, unless it is there; returns its interpreter.

    Args:
        peer: What it is for. One that requires nothing is run by this interpreter.
        root: Folder of all environments.

    Raises:
        ChildError: It can't be had; the message says why.
    """
    if peer.server and shutil.which(peer.server) is None:
        raise ChildError(f"{peer.server} is not installed")
    if not peer.requires:
        return Path(sys.executable)
    folder = root / peer.name
    python = folder / "bin" / "python"
    stamp = folder / ".pronghorn-peer"
    wanted = f"{sys.version} {' '.join(peer.requires)} {_BENCH}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", *peer.requires, "msgspec"])
    _link_benchmarks(python)
    stamp.write_text(wanted)
    return python


def version_of(peer: PeerInfo, python: Path) -> str:
    """Tell the version of a peer as it is installed, and of what else it requires, by name."""
    if not peer.requires:
        return f"Python {sys.version.split()[0]}"
    site = str(_site_packages(python))
    told: list[str] = []
    for name in (each.partition("[")[0] for each in peer.requires):
        found = next(iter(importlib.metadata.distributions(name=name, path=[site])), None)
        version = "unknown" if found is None else found.version
        told.append(f"{name} {version}" if told else version)
    return ", ".join(told)


def server_version(peer: PeerInfo) -> str:
    """Tell the version of the program that a peer needs besides; "" if it needs none."""
    if not peer.server:
        return ""
    done = subprocess.run([peer.server, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("\n")[0][:80]


def _link_benchmarks(python: Path) -> None:
    package = _site_packages(python) / "pronghorn"
    package.mkdir(exist_ok=True)
    os.symlink(_BENCH, package / "bench", target_is_directory=True)


def _site_packages(python: Path) -> Path:
    (found,) = python.parent.parent.glob("lib/python*/site-packages")
    return found


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChildError(f"it can't be installed: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ChildError(f"it can't be installed: {lines[-1] if lines else 'pip does not say why'}")
