"""The clients in scripts/examples/clients as commands that take an endpoint, where they can run.

`scripts/_clients` installs what they need. Where that is missing tests are skipped and say so; with
``PRONGHORN_TEST_CLIENTS=all``, as in CI, they fail.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pronghorn.client import conformance
from pronghorn.client.conformance.walk import STEPS

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "examples" / "clients"
NODES = Path(conformance.__file__).with_name("nodes.py")
NAMES = ("c", "csharp", "node", "python")
WALK = "".join(f"{step.line}\n" for step in STEPS)

_BUILD_S = 60.0


class MissingError(Exception):
    """What a client needs is not on this machine."""


@cache
def walk(name: str, folder: Path) -> tuple[str, ...]:
    """Give the command of a client that takes the walk, built in that folder if it has to be.

    Raises:
        MissingError: It can't be run here; says why.
    """
    if name == "python":
        return (sys.executable, str(FOLDER / "python" / "walk.py"))
    if name == "node":
        needed("node")
        if not (FOLDER / "node" / "node_modules" / "zeromq").is_dir():
            raise MissingError("the packages of scripts/examples/clients/node are not installed")
        return ("node", str(FOLDER / "node" / "walk.mjs"))
    if name == "csharp":
        needed("mcs", "mono")
        program = folder / "Walk.exe"
        sources = [str(path) for path in sorted((FOLDER / "csharp").glob("*.cs"))]
        build("mcs", "-warnaserror", "-r:System.Web.Extensions.dll", f"-out:{program}", *sources)
        return ("mono", str(program))
    needed("cc")
    headers = b"#include <msgpack.h>\n#include <zmq.h>\n"
    if subprocess.run(["cc", "-E", "-"], input=headers, capture_output=True).returncode:
        raise MissingError("the headers of libzmq and msgpack-c are not installed")
    program = folder / "walk"
    sources = [str(FOLDER / "c" / each) for each in ("walk.c", "pronghorn.c")]
    warnings = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fsanitize=address,undefined")
    build("cc", *warnings, "-o", str(program), *sources, "-lmsgpackc", "-lzmq")
    return (str(program),)


def walk_or_skip(name: str, folder: Path) -> tuple[str, ...]:
    """Give the command of a client, or skip the test for want of what it needs."""
    try:
        return walk(name, folder)
    except MissingError as missing:
        skip(str(missing))
        raise AssertionError from missing


def skip(reason: str) -> None:
    """Skip a test for want of something, or fail it where nothing may be missing."""
    if os.environ.get("PRONGHORN_TEST_CLIENTS") == "all":
        pytest.fail(f"{reason}: scripts/_clients should have seen to it", pytrace=False)
    pytest.skip(reason)


def needed(*commands: str) -> None:
    """Check that there are these commands.

    Raises:
        MissingError: One is missing.
    """
    for command in commands:
        if shutil.which(command) is None:
            raise MissingError(f"there is no {command}")


def build(*command: str) -> None:
    """Run a compiler, which has to succeed without a word."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S)
    assert done.returncode == 0, done.stdout + done.stderr
