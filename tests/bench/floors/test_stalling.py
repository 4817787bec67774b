"""Mirror of bench/floors/stalling.py: what it does to callers is in subjects/test_generators.py."""

from pathlib import Path
from time import monotonic

import pytest
import zmq

from pronghorn.bench.children import running


@pytest.mark.slow
def test_it_echoes_and_stands_still(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/service"
    with (
        running("pronghorn.bench.floors.stalling", endpoint, "0.2", "0.1"),
        zmq.Context() as context,
        context.socket(zmq.REQ) as socket,
    ):
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        slowest = 0.0
        while slowest < 0.08:  # one of each period meets the pause from its beginning
            sent = monotonic()
            socket.send(b"hello")
            assert socket.recv() == b"hello"
            slowest = max(slowest, monotonic() - sent)
