"""Streams whose worker or client is lost, and generators that hang."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from trees import Fifo, Running

from pronghorn.client import DeadlineExceededError, WorkerLostError

Start = Callable[..., Running]

READER = """
import sys, time
from pronghorn.client import Client
for part in Client(sys.argv[1]).stream("parts_then", 5, "on", sys.argv[2]):
    print(part, flush=True)
    if part == 9:
        time.sleep(60)
"""


@pytest.mark.slow
def test_a_stream_whose_worker_dies_ends_behind_its_parts(start: Start) -> None:
    running = start()
    stream = running.client.stream("parts_then", 100, "SIGKILL")
    assert [next(stream) for _ in range(100)] == list(range(100))
    with pytest.raises(WorkerLostError) as caught:
        next(stream)
    assert caught.value.outcome == "maybe_executed"
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_generator_that_hangs_loses_its_worker(start: Start) -> None:
    running = start()
    before = running.client.call("pid")
    stream = running.client.stream("parts_then", 3, "hang", timeout_s=0.3)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DeadlineExceededError):
        next(stream)
    assert running.client.call("pid") != before


@pytest.mark.slow
def test_a_generator_that_is_left_while_it_hangs_loses_its_worker(start: Start) -> None:
    running = start()
    before = running.client.call("pid")
    stream = running.client.stream("parts_then", 3, "hang")
    assert next(stream) == 0
    stream.close()
    assert running.client.call("pid") != before


@pytest.mark.slow
def test_a_child_that_a_generator_forks_yields_nothing(start: Start, fifo: Fifo) -> None:
    running = start()
    stream = running.client.stream("parts_then", 3, "fork", fifo.path)
    assert list(stream) == [0, 1, 2, 3]
    assert running.client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_generator_is_closed_when_its_reader_is_killed(start: Start, fifo: Fifo) -> None:
    running = start()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, running.pool.endpoint, str(fifo.path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    with reader:
        assert [reader.stdout.readline() for _ in range(10)][-1] == "9\n"
        os.kill(reader.pid, signal.SIGKILL)
    fifo.line()
    assert running.client.call("add", 1, 2) == 3
