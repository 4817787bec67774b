"""Mirror of client/cli/typescriptstubs.py: tsc finds with the stubs what is wrong."""

import subprocess
from pathlib import Path

import client_nodes
import foreign_clients
import pytest

from pronghorn.client import LocalPool
from pronghorn.client.cli.schematypes import api_of
from pronghorn.client.cli.typescriptstubs import typescript_stubs

TSC = foreign_clients.FOLDER / "node" / "node_modules" / "typescript" / "bin" / "tsc"
OPTIONS = ("--strict", "--noEmit", "--target", "es2022", "--lib", "es2022", "--skipLibCheck")
USE = """\
import { Nodes, type Caller } from "./stubs";
declare const client: Caller<{ timeoutMs?: number }>;
const nodes = new Nodes(client).client_nodes;
export async function right() {
  const total: number = await nodes.add({ a: 1, b: 2 }, { timeoutMs: 50 });
  await nodes.in_context({ a: 1 });
  await nodes.nothing();
  const x: number = (await nodes.move({ point: { x: 1 } })).x + total;
  await nodes.paint({ colour: "red" });
  for await (const point of nodes.points({ count: 3 })) point.x + x;
}
"""
WRONG = (
    "nodes.add({ a: 1, b: '2' });",
    "nodes.add({ a: 1 });",
    "nodes.add({ a: 1, b: 2, c: 3 });",
    "nodes.add({ a: 1, b: 2 }, { timeout: 50 });",
    "nodes.add({ a: 1, b: 2 }).then((total: string) => total);",
    "nodes.paint({ colour: 'blue' });",
    "nodes.noSuchNode({});",
)


@pytest.fixture(scope="module")
def source() -> str:
    with LocalPool(client_nodes.FILE) as pool, pool.client() as client:
        return typescript_stubs(api_of(client.nodes()))


@pytest.mark.slow
def test_tsc_finds_what_is_wrong(source: str, tmp_path: Path) -> None:
    if not TSC.is_file():
        foreign_clients.skip("typescript is not installed in scripts/examples/clients/node")
    (tmp_path / "stubs.ts").write_text(source)
    (tmp_path / "use.ts").write_text(USE + "".join(f"{line}\n" for line in WRONG))
    done = subprocess.run(
        ["node", str(TSC), *OPTIONS, "use.ts"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    first = USE.count("\n") + 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("use.ts(")]
    found = [int(line.removeprefix("use.ts(").partition(",")[0]) - first for line in lines]
    assert found == list(range(len(WRONG))), done.stdout
    assert "stubs.ts" not in done.stdout


def test_what_is_written(source: str) -> None:
    for line in (
        'export type Colour = "green" | "red";',
        "  y?: number;",
        "    size: (params: { content: Uint8Array }, options?: Options): Promise<number> =>",
        "    /** Sum of two integers. */",
    ):
        assert f"{line}\n" in source
    assert "pairs: (params: { text: string; count: number }, options?: Options): " in source
    assert "Promise<Array<[string, number]>>" in source


def test_nothing_served_is_still_a_module() -> None:
    assert "export class Nodes" in typescript_stubs(api_of([]))
