"""Mirror of client/cli/pythonstubs.py: the stubs run, and mypy finds with them what is wrong."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import client_nodes
import pytest

from pronghorn.broker.wire.values import NodeDescription
from pronghorn.client import LocalPool
from pronghorn.client.cli.pythonstubs import python_stubs
from pronghorn.client.cli.schematypes import api_of

ROOT = Path(__file__).resolve().parents[3]
TYPED_USE = """\
import asyncio
from pronghorn.client import AsyncClient, Client
from stubs import AsyncNodes, Nodes

def right(client: Client) -> None:
    nodes = Nodes(client.within(timeout_s=1.0)).client_nodes
    total: int = nodes.add(1, b=2)
    nodes.in_context(1)
    nodes.in_context(a=1, b=2)
    moved = nodes.move({"x": 1})
    moved["x"] + total
    nodes.paint("red")
    for point in nodes.points(3):
        point["x"] + 1

async def right_async(client: AsyncClient) -> None:
    nodes = AsyncNodes(client).client_nodes
    total: int = await nodes.add(1, 2)
    async for point in nodes.points(3):
        point["x"] + total

def wrong(client: Client) -> None:
    nodes = Nodes(client).client_nodes
"""
WRONG = (
    ('nodes.add(1, "2")', "arg-type"),
    ("nodes.add(1)", "call-arg"),
    ("nodes.add(1, 2, c=3)", "call-arg"),
    ("text: str = nodes.add(1, 2)", "assignment"),
    ('nodes.paint("blue")', "arg-type"),
    ('nodes.move({"x": "1"})', "typeddict-item"),
    ('nodes.move({"x": 1})["z"]', "typeddict-item"),
    ("nodes.no_such_node()", "attr-defined"),
)


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    with LocalPool(client_nodes.FILE) as pool:
        yield pool


@pytest.fixture(scope="module")
def source(pool: LocalPool) -> str:
    with pool.client() as client:
        return python_stubs(api_of(client.nodes()))


def test_stubs_call(pool: LocalPool, source: str, tmp_path: Path) -> None:
    (tmp_path / "stubs.py").write_text(source)
    spec = spec_from_file_location("stubs", tmp_path / "stubs.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    with pool.client() as client:
        nodes = module.Nodes(client).client_nodes
        assert nodes.add(1, b=2) == 3
        assert nodes.keyword_only(2) == 20
        assert nodes.named_like_options(timeout_s=1.5, params=2) == client_nodes.named_like_options(
            timeout_s=1.5, params=2
        )
        assert nodes.nothing() is None
        assert nodes.move({"x": 1}, by=2)["x"] == 3
        assert [point["x"] for point in nodes.points(3)] == [0, 1, 2]


@pytest.mark.slow
def test_mypy_finds_what_is_wrong(source: str, tmp_path: Path) -> None:
    (tmp_path / "stubs.py").write_text(source)
    use = tmp_path / "use.py"
    use.write_text(TYPED_USE + "".join(f"    {line}\n" for line, _ in WRONG))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(use), str(tmp_path / "stubs.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    first = TYPED_USE.count("\n") + 1
    found = [
        (int(line.split(":")[1]) - first, line.rpartition("[")[2].rstrip("]"))
        for line in done.stdout.splitlines()
        if ": error: " in line
    ]
    assert found == [(index, code) for index, (_, code) in enumerate(WRONG)], done.stdout


def described(name: str, properties: Any, required: Any = (), **more: Any) -> NodeDescription:
    params = {"properties": properties, "required": list(required)}
    return NodeDescription(name, (), "inline", "", more.get("doc", ""), params, {}, False)


def test_odd_names_and_defaults() -> None:
    node = described(
        "a.b.f",
        {
            "table": {"type": "array", "items": {"type": "integer"}, "default": [1]},
            "unknown": {"type": "integer"},
            "flag": {"type": "boolean", "default": True},
            "last": {"type": "integer"},
        },
        ["last"],
        doc='Say """so""" \\ here.\n\nAnd more.',
    )
    source = python_stubs(api_of([node, described("g", {}), described("class.h", {})]))
    compile(source, "stubs.py", "exec")
    assert (
        "def f(self, /, *, table: list[int] | _Omitted = _OMITTED, "
        "unknown: int | _Omitted = _OMITTED, flag: bool = True, last: int) -> Any:" in source
    )
    assert "self.a_b: Final = _AB(client)" in source
    assert "self.class_: Final" in source
    assert "self.nodes: Final" in source, "of a node without a module"


def test_records_with_names_that_python_does_not_allow() -> None:
    node = NodeDescription(
        "m.f",
        (),
        "inline",
        "",
        "",
        {},
        {
            "$ref": "#/$defs/Odd",
            "$defs": {
                "Odd": {
                    "type": "object",
                    "properties": {"a-b": {"type": "integer"}, "class": {"$ref": "#/$defs/Odd"}},
                    "required": ["a-b"],
                }
            },
        },
    )
    namespace: dict[str, Any] = {"__name__": "stubs"}
    exec(python_stubs(api_of([node])), namespace)
    assert namespace["Odd"].__annotations__.keys() == {"a-b", "class"}


def test_nothing_served_is_still_a_module() -> None:
    compile(python_stubs(api_of([])), "stubs.py", "exec")
