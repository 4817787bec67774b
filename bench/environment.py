"""Where a figure was measured: machine, versions, commit and command. Kept with every raw result.

Mirror: tests/bench/test_environment.py.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import zmq

ROOT_VARIABLE = "PRONGHORN_BENCH_ROOT"
"""Set by scripts/bench: the repository, for its commit and its folder of results."""

_PACKAGES = ("pronghorn", "pyzmq", "msgspec", "uvloop", "Pyro5")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reader needs to repeat the run or to doubt it."""

    time_utc: str
    command: str
    commit: str | None
    uncommitted_changes: bool | None
    installed_as: str
    cpu: str
    cores: int
    cores_allowed: int
    governor: str | None
    load_average_1_min: float
    load_and_server_share_cores: bool
    kernel: str
    python: str
    libzmq: str
    packages: dict[str, str | None]


def collect(command: str | None = None) -> Environment:
    """Describe the machine and the installation as they are now.

    Args:
        command: What was run, if not ``bench`` with this process's arguments.
    """
    root = repository()
    changes = _git(root, "status", "--porcelain")
    return Environment(
        time_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=command
        or shlex.join(["scripts/bench" if root else "python -m pronghorn.bench", *sys.argv[1:]]),
        commit=_git(root, "rev-parse", "HEAD"),
        uncommitted_changes=None if changes is None else bool(changes),
        installed_as=installed_as(),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        cores_allowed=len(os.sched_getaffinity(0)),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_average_1_min=os.getloadavg()[0],
        load_and_server_share_cores=True,  # one host: always
        kernel=platform.release(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libzmq=zmq.zmq_version(),
        packages={name: _version(name) for name in _PACKAGES},
    )


def repository() -> Path | None:
    """Return the repository that scripts/bench was run from, if it was."""
    named = os.environ.get(ROOT_VARIABLE)
    return Path(named) if named else None


def installed_as() -> str:
    """Say whether the measured package is a wheel, or the tree itself, which starts slower."""
    origin = importlib.metadata.distribution("pronghorn").read_text("direct_url.json")
    editable = origin and json.loads(origin).get("dir_info", {}).get("editable")
    return "editable tree" if editable else "wheel"


def _git(root: Path | None, *arguments: str) -> str | None:
    if root is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
