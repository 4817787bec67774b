"""Mirror of client/cli/stubbing.py: ``pronghorn stubs`` and ``pronghorn nodes --schema``."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


def test_stubs_of_a_broker_and_of_its_module_are_the_same(served: Commands) -> None:
    of_broker = served("stubs")
    assert (of_broker.status, of_broker.errors) == (0, "")
    assert "def add(self, /, a: int, b: int) -> int:" in of_broker.output
    assert served("stubs", "nodes.py").output == of_broker.output


def test_stubs_in_typescript_as_json(served: Commands) -> None:
    told = json.loads(served("stubs", "--lang", "typescript", "--json", "nodes.py").output)
    assert told["language"] == "typescript"
    assert "export class Nodes" in told["source"]


def test_schemas_by_name(served: Commands) -> None:
    told = json.loads(served("nodes", "--schema").output)
    node = told["nodes"]["nodes.add"]
    assert node["params"]["properties"]["a"] == {"type": "integer"}
    assert node["params"]["additionalProperties"] is False
    assert node["result"] == {"$schema": told["$schema"], "type": "integer"}
    assert told["nodes"]["nodes.count"]["streams"] is True


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("stubs", "no_such.py"), 2, "can't be loaded"),
        (("stubs", "nodes.py", "--name", "x"), 2, "not both"),
        (("stubs",), 3, "no broker"),
        (("nodes", "--schema"), 3, '"BROKER_LOST"'),
    ],
)
def test_wrong_uses(commands: Commands, words: tuple[str, ...], status: int, text: str) -> None:
    done = commands(*words)
    assert (done.status, done.output) == (status, "")
    assert text in done.errors
