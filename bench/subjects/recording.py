"""A server that records what comes, ``serve --record``, or does not: the same otherwise.

Mirror: tests/bench/subjects/test_recording.py.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pronghorn.client import AsyncClient, Client

from ..timing import Measure, time_each
from .calls import NODES, AsyncRunner, all_at_once, parameters
from .first_call import SOCKET_NAME, START_TIMEOUT_S, serving

TRACE_NAME = "calls.trace"
WORKERS = 2

_LOOK_S = 0.01  # nobody tells when the last worker is ready


@contextlib.contextmanager
def round_trip(*, records: bool) -> Iterator[Measure]:
    """``Client.call``, one after the other."""
    node, arguments, expected = parameters(0, 0)
    with (
        _server(records=records) as endpoint,
        Client(endpoint, connect_timeout_s=START_TIMEOUT_S) as client,
    ):
        call = client.call
        yield lambda calls: time_each(lambda: call(node, **arguments), expected, calls)


@contextlib.contextmanager
def burst(*, records: bool) -> Iterator[Measure]:
    """All calls at once."""
    with (
        _server(records=records) as endpoint,
        AsyncRunner(lambda: AsyncClient(endpoint, connect_timeout_s=START_TIMEOUT_S)) as runner,
    ):
        yield all_at_once(runner)


@contextlib.contextmanager
def _server(*, records: bool) -> Iterator[str]:
    """Serve on the cores that this process may use; gives the endpoint."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as name:
        folder = Path(name)
        endpoint = f"ipc://{folder / SOCKET_NAME}"
        more = ["--cpus", ",".join(map(str, sorted(os.sched_getaffinity(0))))]
        if records:
            more += ["--record", str(folder / TRACE_NAME)]
        with serving(NODES, folder, endpoint, WORKERS, *more):
            _wait_until_ready(endpoint)
            yield endpoint
        if records and not (folder / TRACE_NAME).stat().st_size:
            raise RuntimeError("nothing was recorded")


def _wait_until_ready(endpoint: str) -> None:
    """Wait for all workers: until then there are processes that only start others."""
    end = time.monotonic() + START_TIMEOUT_S
    with Client(endpoint, connect_timeout_s=START_TIMEOUT_S) as client:
        while True:
            workers = client.admin.workers()
            if len(workers) >= WORKERS and all(one.state == "ready" for one in workers):
                return
            if time.monotonic() > end:
                raise RuntimeError("the workers do not become ready")
            time.sleep(_LOOK_S)
