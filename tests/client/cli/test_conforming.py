"""Mirror of client/cli/conforming.py."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from commands import Commands
from key_folders import Keys

from pronghorn.client.conformance import nodes
from pronghorn.client.launch import ProcessTree


@pytest.mark.slow
def test_a_broker_is_checked(served: Commands) -> None:
    done = served("conformance")
    assert done.status == 0, done.output
    assert " passed, 0 failed, " in done.output.splitlines()[-1]
    assert "it does not serve" in done.output
    told = json.loads(served("conformance", "--json").output)
    assert told["passed"] + told["skipped"] == len(told["findings"])


@pytest.mark.slow
def test_a_broker_that_wants_a_key_is_checked(commands: Commands, tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    tree = ProcessTree(
        [Path(str(nodes.__file__))],
        workers=2,
        folder=tmp_path / "tree",
        endpoints=["tcp://127.0.0.1:0"],
        keys=keys.folder.path,
    )
    with closing(tree):
        endpoint = tree.ready.endpoints[1]
        skipped = []
        for name, reads in (("checker", True), ("caller", False)):
            key = str(keys.file(name, reads=reads))
            done = commands("--key", key, "conformance", endpoint, "--json")
            told = json.loads(done.output)
            assert (done.status, told["failed"]) == (0, 0), done.output
            skipped.append({one["name"] for one in told["findings"] if one["verdict"] == "skipped"})
        assert skipped[1] - skipped[0] == {"acks are counted", "JSON: nodes of Pronghorn's own"}
        assert skipped[0] == {"streams carry frames without ZeroMQ"}
        done = commands("--key", str(keys.folder.path / "none.key"), "conformance", endpoint)
        assert done.status == 2
        assert "none.key" in done.errors


@pytest.mark.slow
def test_a_client_is_checked(commands: Commands) -> None:
    done = commands("conformance", "--serve", "--json", "--", "false")
    told = json.loads(done.output)
    assert (done.status, told["failed"] > 0) == (1, True)
    assert told["findings"][0]["name"] == "walk: call"


@pytest.mark.slow
def test_the_nodes_are_printed(commands: Commands) -> None:
    done = commands("conformance", "--nodes")
    assert nodes.__file__ is not None
    with open(nodes.__file__) as file:
        assert done.output == file.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("ipc:///nowhere",), 3, "no broker at ipc:///nowhere"),
        (("ipc:///a", "ipc:///b"), 2, "give one endpoint"),
        (("--serve",), 2, "--serve needs the command"),
        (("--serve", "--", "no-such-client"), 2, "can't be started"),
    ],
)
def test_wrong_uses(commands: Commands, words: tuple[str, ...], status: int, text: str) -> None:
    done = commands("conformance", *words)
    assert (done.status, done.output) == (status, "")
    assert text in done.errors
