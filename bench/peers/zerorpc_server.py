"""zerorpc over ipc. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..children import die_with_parent, running, say_ready
from ..floors.functions import add
from .measuring import Peer

_LATER = {"async": True}  # a word of the language by now, so no name of an argument


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """One server process, one client."""
    zerorpc = importlib.import_module("zerorpc")
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        address = f"ipc://{Path(folder) / 'zerorpc'}"
        with running("pronghorn.bench.peers.zerorpc_server", address):
            client = zerorpc.Client(heartbeat=None)
            client.connect(address)

            def burst(count: int) -> list[int]:
                results = [client.add(index, 1, **_LATER) for index in range(count)]
                return [result.get() for result in results]

            try:
                yield Peer(lambda: client.add(1, 2), burst)
            finally:
                client.close()


class _Nodes:
    def add(self, a: int, b: int) -> int:
        return add(a, b)


def main() -> None:
    """Serve `add` at the address given, until killed."""
    die_with_parent()
    zerorpc = importlib.import_module("zerorpc")
    server = zerorpc.Server(_Nodes(), heartbeat=None)
    server.bind(sys.argv[1])
    say_ready()
    server.run()


if __name__ == "__main__":
    main()
