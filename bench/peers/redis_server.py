"""A Redis server for the peers that want one: on loopback, nothing saved.

Mirror: tests/bench/peers/test_peers.py.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from ..children import ChildError

_START_S = 10.0


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run one for the time of a block; gives its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise ChildError("redis-server is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with running_server([program, *arguments], port):
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def running_server(command: list[str], port: int) -> Iterator[None]:
    """Run a server from when it accepts connections until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise ChildError(f"{command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
