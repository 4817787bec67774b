"""From the command line to the first answer: `pronghorn serve` as a process, and a client.

The time runs from just before the server is started until the result of the first call is there:
the interpreter's start, all imports, the process tree, and the client's connection. The client
is imported already, as in a program that runs. Each start has a runtime folder and a file of
nodes of its own. The files are in the page cache; a first start after boot is slower.

Mirror: tests/bench/subjects/test_first_call.py.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns

from pronghorn.client import Client

from ..figures import Measurement
from ..inotify import watching
from ..timing import Measure, check

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
SOCKET_NAME = "bench.sock"

NODES_NAME = "nodes.py"
NODES_FILE = '''\
from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b
'''


@contextlib.contextmanager
def serve_to_first_call(workers: int = 2, *, client_waits: bool = False) -> Iterator[Measure]:
    """Start a server and call it, so many times.

    Args:
        workers: As for `serve`.
        client_waits: The client connects before the server is started, instead of the moment its
            socket exists: what reconnecting adds.
    """
    first_call = _with_waiting_client if client_waits else _with_late_client

    def once() -> int:
        with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as name:
            folder = Path(name)
            (folder / NODES_NAME).write_text(NODES_FILE)
            return first_call(folder, workers)

    yield lambda calls: _repeated(once, calls)


@contextlib.contextmanager
def help_text() -> Iterator[Measure]:
    """Run ``pronghorn --help``, so many times."""
    yield lambda calls: _repeated(lambda: _command_ns([str(console_script()), "--help"]), calls)


@contextlib.contextmanager
def bare_interpreter() -> Iterator[Measure]:
    """Run an interpreter that does nothing: the floor of any command."""
    yield lambda calls: _repeated(lambda: _command_ns([sys.executable, "-c", "pass"]), calls)


def console_script() -> Path:
    """Return the command that was installed beside this interpreter."""
    return Path(sys.executable).with_name("pronghorn")


def _with_late_client(folder: Path, workers: int) -> int:
    endpoint = f"ipc://{folder / SOCKET_NAME}"
    with watching(folder) as watch:
        begin = perf_counter_ns()
        with serving(folder / NODES_NAME, folder, endpoint, workers) as server:
            watch.wait_for(SOCKET_NAME, maker=server, timeout_s=START_TIMEOUT_S)
            with Client(endpoint) as client:
                check(client.call("add", a=1, b=2), 3)
                return perf_counter_ns() - begin


def _with_waiting_client(folder: Path, workers: int) -> int:
    endpoint = f"ipc://{folder / SOCKET_NAME}"
    begin = perf_counter_ns()
    with (
        serving(folder / NODES_NAME, folder, endpoint, workers),
        Client(endpoint, connect_timeout_s=START_TIMEOUT_S) as client,
    ):
        check(client.call("add", a=1, b=2), 3)
        return perf_counter_ns() - begin


@contextlib.contextmanager
def serving(nodes: Path, folder: Path, endpoint: str, workers: int, *more: str) -> Iterator[int]:
    """Run ``pronghorn serve``, give its pid.

    Args:
        nodes: File of the nodes.
        folder: For its runtime files.
        endpoint: Where it listens too.
        workers: How many.
        *more: Further arguments.
    """
    command = [str(console_script()), "serve", str(nodes)]
    command += ["--workers", str(workers), "--bind", endpoint, *more]
    server = subprocess.Popen(
        command,
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=STOP_TIMEOUT_S)


def _command_ns(command: list[str]) -> int:
    begin = perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter_ns() - begin


def _repeated(once: Callable[[], int], calls: int) -> Measurement:
    latencies = [once() for _ in range(calls)]
    return Measurement(calls=calls, elapsed_ns=sum(latencies), latencies_ns=latencies)
