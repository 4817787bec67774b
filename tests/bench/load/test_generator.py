"""A generator process by itself: what it says to whom. Whole runs are in test_session.py."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns

import pytest
from bare_service import bare_service

from pronghorn.bench.children import python_command, stop
from pronghorn.bench.load.mix import Kind, make_kind
from pronghorn.bench.load.orders import (
    Begin,
    Done,
    Failed,
    FromGenerator,
    Inlet,
    Order,
    Progress,
    Ready,
    send,
)
from pronghorn.bench.load.plan import Plan

pytestmark = pytest.mark.slow

Process = subprocess.Popen[bytes]


@pytest.fixture
def generator() -> Iterator[Process]:
    process = subprocess.Popen(
        python_command("pronghorn.bench.load.generator", ()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    yield process
    stop(process)


def said(process: Process) -> Iterator[FromGenerator]:
    assert process.stdout is not None
    inlet = Inlet()
    while part := process.stdout.read(65536):
        yield from inlet.feed(part)


def order(process: Process, message: Order | Begin) -> None:
    assert process.stdin is not None
    send(process.stdin.fileno(), message)


def frames(plan: Plan, endpoint: str) -> Order:
    return Order(plan, (Kind("frame", 1.0, (b"hello",)),), "req", endpoint, 0)


def test_carries_out_its_order_and_ends(generator: Process) -> None:
    with bare_service() as endpoint:
        order(generator, frames(Plan(rate=100, duration_s=0.5, warmup_s=0.1), endpoint))
        messages = said(generator)
        assert next(messages) == Ready()
        order(generator, Begin(monotonic_ns()))
        *progress, done = messages
    assert all(isinstance(each, Progress) for each in progress)
    assert isinstance(done, Done)
    assert (done.pid, done.stopped) == (generator.pid, False)
    assert done.tally.counts["sent"] == 50
    assert done.tally.counts["warmup_calls"] == 10
    assert generator.wait(10) == 0


def test_end_of_its_orders_stops_it_before_the_end(generator: Process) -> None:
    with bare_service() as endpoint:
        order(generator, frames(Plan(rate=100, duration_s=600, warmup_s=0), endpoint))
        messages = said(generator)
        assert next(messages) == Ready()
        order(generator, Begin(monotonic_ns()))
        assert isinstance(next(messages), Progress)
        assert generator.stdin is not None
        generator.stdin.close()
        *_, done = messages
    assert isinstance(done, Done)
    assert done.stopped
    assert 0 < done.tally.counts["sent"] < 10_000


def test_session_that_vanishes_before_the_beginning_ends_it(generator: Process) -> None:
    with bare_service() as endpoint:
        order(generator, frames(Plan(rate=1), endpoint))
        assert next(said(generator)) == Ready()
        assert generator.stdin is not None
        generator.stdin.close()
        assert generator.wait(10) == 0


def test_says_why_it_cant_begin(generator: Process, tmp_path: Path) -> None:
    kinds = (make_kind("add", 1, [[1, 2]], 1),)
    order(generator, Order(Plan(rate=1), kinds, "pronghorn", f"ipc://{tmp_path}/none", 0))
    (failed,) = said(generator)
    assert isinstance(failed, Failed)
    assert failed.code == "BROKER_LOST"
    assert generator.wait(10) == 0
