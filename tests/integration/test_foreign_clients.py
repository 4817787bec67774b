"""The clients in scripts/examples/clients, in C, C#, JavaScript and Python without our package.

All take their walk at the same time, at one pool, whose broker is killed while each has a call
open: that is quicker than one after the other.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import foreign_clients
import pytest
from foreign_clients import WALK, MissingError

from pronghorn.client import Pool
from pronghorn.client.faults import Faults

WALK_S = 60.0

pytestmark = (
    pytest.mark.slow
)  # they are programs, of which two start slowly, and a broker is killed


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def walks(
    programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[int, str, str]]]:
    """Exit code, output and errors of each client that can run here."""
    walking: dict[str, subprocess.Popen[str]] = {}
    output = dict.fromkeys(foreign_clients.NAMES, "")
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv(
            "XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run"))
        )
        pool = stack.enter_context(Pool(foreign_clients.NODES, workers=2))
        for name in foreign_clients.NAMES:
            with suppress(MissingError):
                walking[name] = process = subprocess.Popen(
                    [*foreign_clients.walk(name, programs), pool.endpoint],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                stack.callback(process.communicate)
                stack.callback(process.kill)
        for name, process in walking.items():
            assert process.stdout is not None
            while line := process.stdout.readline():
                output[name] += line
                if line == "open\n":
                    break
        with pool.client() as client:
            Faults(client).kill_broker()
        ended = {}
        for name, process in walking.items():
            rest, errors = process.communicate(timeout=WALK_S)
            ended[name] = (process.returncode, output[name] + rest, errors)
        yield ended


@pytest.mark.parametrize("name", foreign_clients.NAMES)
def test_a_client_in_another_language_takes_its_walk(
    name: str, programs: Path, walks: dict[str, tuple[int, str, str]]
) -> None:
    foreign_clients.walk_or_skip(name, programs)
    assert walks[name] == (0, WALK, "")


def test_the_walk_is_the_one_that_is_described() -> None:
    text = (foreign_clients.FOLDER / "README.md").read_text()
    for line in WALK.splitlines():
        assert f"`{line}`" in text


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, command in (("c", "cc"), ("csharp", "mcs"), ("node", "node")):
        with pytest.raises(MissingError, match=f"there is no {command}"):
            foreign_clients.walk(name, tmp_path)
