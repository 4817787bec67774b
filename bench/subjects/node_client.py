"""The example client for Node.js as a subject, and the same client against a C proxy.

The client is that of ``scripts/examples/clients/node``, unchanged, in a Node.js process of its own
which times its calls itself, one after the other. Its floor is the same process and the same calls,
answered by a worker behind `zmq.proxy` that decodes each and encodes a result: what no broker could
spare this client. It would be wrong if the floor's worker did less than a worker has to.

Mirror: tests/bench/subjects/test_node_client.py.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..children import running, stop, wait_until_ready
from ..environment import repository
from ..figures import Measurement
from ..timing import Measure, check
from .calls import open_pool

_PEERS = "pronghorn.bench.floors.zeromq_peers"
_PROGRAM = """\
import { createInterface } from "node:readline";
const { Client } = await import(process.argv[1]);
const client = new Client(process.argv[2]);
let sum = await client.call("add", { a: 1, b: 2 });
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const latencies = new Array(Number(line));
  const begin = process.hrtime.bigint();
  let before = begin;
  for (let index = 0; index < latencies.length; index++) {
    sum = await client.call("add", { a: 1, b: 2 });
    const after = process.hrtime.bigint();
    latencies[index] = Number(after - before);
    before = after;
  }
  console.log(JSON.stringify({ sum, elapsed_ns: Number(before - begin), latencies_ns: latencies }));
}
client.close();
"""


class _Answer(msgspec.Struct):
    sum: int
    elapsed_ns: int
    latencies_ns: list[int]


def folder() -> Path:
    """Tell where the client is: in the repository, for it is no part of the package."""
    root = repository() or Path(__file__).resolve().parents[2]
    return root / "scripts" / "examples" / "clients" / "node"


def is_available() -> bool:
    """Whether there is Node.js, and what the client needs of its packages."""
    return shutil.which("node") is not None and (folder() / "node_modules" / "zeromq").is_dir()


@contextlib.contextmanager
def round_trip(workers: int = 2) -> Iterator[Measure]:
    """Calls of a pool."""
    with open_pool(workers) as pool, _client(pool.endpoint) as measure:
        yield measure


@contextlib.contextmanager
def proxied() -> Iterator[Measure]:
    """The same calls, through `zmq.proxy` in C to one blocking worker and back."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as place:
        front, back = (f"ipc://{Path(place) / name}" for name in ("front", "back"))
        with (
            running(_PEERS, "proxy", front, back),
            running(_PEERS, "answerer", back),
            _client(front) as measure,
        ):
            yield measure


@contextlib.contextmanager
def _client(endpoint: str) -> Iterator[Measure]:
    process = subprocess.Popen(
        ["node", "--input-type=module", "-e", _PROGRAM, str(folder() / "pronghorn.mjs"), endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        wait_until_ready(process.stdout, "the client in Node.js")
        asking, answers = process.stdin, process.stdout

        def measure(calls: int) -> Measurement:
            asking.write(f"{calls}\n")
            asking.flush()
            answer = msgspec.json.decode(answers.readline(), type=_Answer)
            check(answer.sum, 3)
            return Measurement(
                calls=calls, elapsed_ns=answer.elapsed_ns, latencies_ns=answer.latencies_ns
            )

        yield measure
    finally:
        stop(process)
