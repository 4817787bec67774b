"""The clients in scripts/examples/clients, in C, C#, JavaScript and Python without our package.

All take their walk at the same time, at one broker, which is killed while each has a call open:
that is quicker than one after the other. Once over ipc, and once with a key over tcp.
"""

import os
import subprocess
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import foreign_clients
import pytest
from foreign_clients import WALK, MissingError
from key_folders import Keys

from pronghorn.client import Client
from pronghorn.client.faults import Faults
from pronghorn.client.launch import ProcessTree

WALK_S = 60.0

Walks = dict[str, tuple[int, str, str]]

pytestmark = (
    pytest.mark.slow
)  # they are programs, of which two start slowly, and a broker is killed


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module", params=["ipc", "a key"])
def walks(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Walks:
    """Exit code, output and errors of each client that can run here, without a key and with one."""
    folder = tmp_path_factory.mktemp("run")
    if request.param == "ipc":
        with closing(ProcessTree([foreign_clients.NODES], workers=2, folder=folder)) as tree:
            [endpoint] = tree.ready.endpoints
            return take(programs, endpoint, beside=endpoint, environment={})
    keys = Keys(folder / "keys")
    environment = {"PRONGHORN_KEY": str(keys.file("walker"))}
    tree = ProcessTree(
        [foreign_clients.NODES],
        workers=2,
        folder=folder / "tree",
        endpoints=["tcp://127.0.0.1:0"],
        keys=keys.folder.path,
    )
    with closing(tree):
        beside, endpoint = tree.ready.endpoints
        return take(programs, endpoint, beside=beside, environment=environment)


def take(programs: Path, endpoint: str, *, beside: str, environment: dict[str, str]) -> Walks:
    """Have all clients take their walk; the broker is killed when each has said that it waits."""
    walking: dict[str, subprocess.Popen[str]] = {}
    output = dict.fromkeys(foreign_clients.NAMES, "")
    with ExitStack() as stack:
        for name in foreign_clients.NAMES:
            with suppress(MissingError):
                walking[name] = process = subprocess.Popen(
                    [*foreign_clients.walk(name, programs), endpoint],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | environment,
                )
                stack.callback(process.communicate)
                stack.callback(process.kill)
        for name, process in walking.items():
            assert process.stdout is not None
            while line := process.stdout.readline():
                output[name] += line
                if line == "open\n":
                    break
        with Client(beside) as client:
            Faults(client).kill_broker()
        ended = {}
        for name, process in walking.items():
            rest, errors = process.communicate(timeout=WALK_S)
            ended[name] = (process.returncode, output[name] + rest, errors)
        return ended


@pytest.mark.parametrize("name", foreign_clients.NAMES)
def test_a_client_in_another_language_takes_its_walk(
    name: str, programs: Path, walks: Walks
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
