"""Pronghorn over tcp loopback with keys, alone or beside connections that nobody uses.

Mirror: tests/bench/subjects/test_keys.py.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zmq

from pronghorn.broker.wire.keyfiles import KeyFolder
from pronghorn.broker.wire.keys import Entry, PrivateKey, Rights
from pronghorn.client import Client
from pronghorn.client.launch import ProcessTree

from ..children import running
from ..figures import Measurement
from ..processes import memory
from ..timing import Measure, time_each
from ..tree import Tree
from .calls import NODES, parameters

KIB_EACH = "broker memory for each idle connection, KiB"

_CROWD = "pronghorn.bench.subjects.idle_crowd"


@contextlib.contextmanager
def sync_round_trip(payload_bytes: int = 0, workers: int = 2, idle: int = 0) -> Iterator[Measure]:
    """``Client.call`` with a key, one after the other, beside so many idle connections."""
    node, arguments, expected = parameters(payload_bytes, 0)
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        keys, key = _make_keys(Path(folder, "keys"))
        tree = ProcessTree(
            [NODES],
            workers=workers,
            folder=Path(folder, "run"),
            endpoints=["tcp://127.0.0.1:0"],
            keys=keys.path,
            cpus=_cpus(),
        )
        with contextlib.closing(tree), contextlib.ExitStack() as stack:
            endpoint = tree.ready.endpoints[1]
            client = stack.enter_context(Client(endpoint, key=key))
            client.call(node, **arguments)
            [broker] = Tree.of_this_process().pids["broker"]
            costs: dict[str, float] = {}
            if idle:
                before = memory(broker).uss_kib
                environment = {
                    "PRONGHORN_SECRET_KEY": key.secret,
                    "PRONGHORN_SERVER_KEY": key.server,
                }
                with _environment(environment):
                    stack.enter_context(running(_CROWD, endpoint, str(idle)))
                costs[KIB_EACH] = (memory(broker).uss_kib - before) / idle

            def measure(calls: int) -> Measurement:
                measured = time_each(lambda: client.call(node, **arguments), expected, calls)
                return msgspec.structs.replace(measured, extra=costs)

            yield measure


def _make_keys(path: Path) -> tuple[KeyFolder, PrivateKey]:
    """Make a folder of keys, and that of one client which may do all."""
    folder = KeyFolder(path)
    folder.make()
    server, client = _pair(), _pair()
    folder.add_server(server)
    folder.add(Entry("bench", client.public, Rights()))
    return folder, PrivateKey(client.public, client.secret, server.public)


def _pair() -> PrivateKey:
    public, secret = zmq.curve_keypair()
    return PrivateKey(public.decode(), secret.decode())


def _cpus() -> list[int]:
    allowed = sorted(os.sched_getaffinity(0))
    return allowed if len(allowed) < (os.cpu_count() or 1) else []


@contextlib.contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    """Have children that are started within the block find that in their environment."""
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
