"""Mirror of worker/process.py: forked and spawned workers; supervisor and broker played here."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from broker_ends import BrokerEnd, run_call
from trees import Fifo

from pronghorn.broker.processes import kill, reap, spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    EXIT_START_HOOK,
    UNCONFINED,
    Confinement,
    Loaded,
    StartWorker,
    TemplateConfig,
    WorkerForked,
)
from pronghorn.broker.wire.link import CancelRun, Nested, Stop

_PR_SET_CHILD_SUBREAPER = 36

Start = Callable[..., int]

NODES = """
import asyncio, os, signal, socket, sys, time
from pronghorn.broker.wire.stream import FrameWriter
from pronghorn.worker import Context, node, on_start, on_stop

def note(text):
    with open({fifo!r}, "a") as out:
        print(text, file=out)

{hooks}

@node
def add(a: int, b: int) -> int: return a + b

@node
async def loop_id() -> int: return id(asyncio.get_running_loop())

@node
async def linger() -> None:
    try:
        note("lingers")
        await asyncio.Event().wait()
    finally:
        note("lingered")

@node
def break_the_link() -> None:
    def write(*_): raise RuntimeError("no way")
    FrameWriter.write = write

@node
async def break_the_link_later() -> None:
    await asyncio.sleep(0)
    break_the_link()

@node
def break_the_link_and_wait(ctx: Context) -> int:
    def recv(*_): raise RuntimeError("no way")
    socket.socket.recv = recv
    return ctx.call_sync("add", 1, 2)

@node
def fill_the_link() -> bytes:
    real = FrameWriter.write
    def write(self, frame):
        send = self._send
        self._send = lambda data, flags: send(data[:1000], flags)
        FrameWriter.flush = fail
        return real(self, frame)
    def fail(*_): raise RuntimeError("no way")
    FrameWriter.write = write
    return bytes(60_000)

@node
async def end_the_program() -> None:
    asyncio.create_task(exit_soon())

async def exit_soon(): sys.exit("so long")
"""
NAMES = (
    *("add", "loop_id", "linger", "break_the_link", "break_the_link_later"),
    *("break_the_link_and_wait", "fill_the_link", "end_the_program"),
)
CALL = {name: index for index, name in enumerate(NAMES)}


@pytest.fixture(autouse=True)
def _adopts_orphans() -> Iterator[None]:
    """Have workers become children of this process, as they become the supervisor's."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


@pytest.fixture
def end() -> Iterator[BrokerEnd]:
    with BrokerEnd() as end:
        yield end


@pytest.fixture(params=["forked", "spawned"])
def start(request: pytest.FixtureRequest, tmp_path: Path, fifo: Fifo) -> Iterator[Start]:
    """Start a worker that serves `NODES` with some hooks; gives its process."""
    templates: list[tuple[ControlChannel, int]] = []

    def start(end: BrokerEnd, hooks: str = "", confinement: Confinement = UNCONFINED) -> int:
        module = tmp_path / "shop.py"
        module.write_text(NODES.format(fifo=fifo.path, hooks=hooks))
        config = TemplateConfig(
            modules=(str(module),),
            sys_path=tuple(sys.path),
            supervisor_pid=os.getpid(),
            result_bytes=1_000_000,
            confinement=confinement,
        )
        ours, theirs = make_pair()
        channel = ControlChannel(ours)
        with theirs:
            if request.param == "spawned":
                given = [end.link_fd, end.page_fd, theirs.fileno()]
                pid = spawn_module("pronghorn.worker.spawned", ["4", *map(str, given)], given)
                channel.send(config)
                channel.close()
                end.give_away()
                return pid
            given = [theirs.fileno()]
            template = spawn_module("pronghorn.worker.template", [str(given[0])], given)
        templates.append((channel, template))
        channel.send(config)
        received = channel.receive()
        assert received is not None
        assert isinstance(received[0][0], Loaded)
        channel.send(StartWorker(4), (end.link_fd, end.page_fd))
        end.give_away()
        received = channel.receive()
        assert received is not None
        forked = received[0][0]
        assert isinstance(forked, WorkerForked)
        return forked.pid

    yield start
    for channel, template in templates:
        channel.close()
        assert reap(template) == "exit status 0"


# --- what it may take ---------------------------------------------------------------------------

CONFINED = """
@on_start
def look():
    import resource
    note(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_it_is_confined_before_any_code_of_users_runs_in_it(
    start: Start, end: BrokerEnd, fifo: Fifo
) -> None:
    pid = start(end, CONFINED, Confinement(files=77))
    assert fifo.line() == "(77, 77)"
    end.ready()
    end.send(Stop())
    assert reap(pid) == "exit status 0"


# --- hooks -------------------------------------------------------------------------------------

ORDERLY = """
@on_start
def open_model(): note("open model")

@on_start
async def open_session():
    global the_loop
    the_loop = id(asyncio.get_running_loop())
    note("open session")

@on_stop
def close_model():
    asyncio.run(asyncio.sleep(0))
    note("close model")

@on_stop
async def close_session():
    note(f"close session {id(asyncio.get_running_loop()) == the_loop}")

@node
def which() -> int: return the_loop
"""


@pytest.mark.parametrize("told", [True, False])
def test_hooks_run_before_it_is_ready_and_at_its_orderly_end(
    start: Start, end: BrokerEnd, fifo: Fifo, told: bool
) -> None:
    pid = start(end, ORDERLY)
    assert [fifo.line(), fifo.line()] == ["open model", "open session"]
    end.ready()
    end.send(run_call(1, 0))
    _, the_loop = end.value()
    end.send(run_call(2, 1 + CALL["loop_id"]))
    assert end.value() == (2, the_loop)
    end.send(run_call(3, 1 + CALL["linger"]))
    assert fifo.line() == "lingers"
    if told:
        end.send(Stop())
        end.send(CancelRun(3))
    else:
        end.socket.close()
    assert fifo.line() == "lingered"
    assert [fifo.line(), fifo.line()] == ["close session True", "close model"]
    assert reap(pid) == "exit status 0"


def test_what_hooks_leave_on_the_loop_runs_on_until_the_end(
    start: Start, end: BrokerEnd, fifo: Fifo
) -> None:
    hooks = """
async def tick():
    try:
        while True:
            await asyncio.sleep(0.001)
            asyncio.get_running_loop()
            ticks.append(1)
    finally:
        note("ticked")

@on_start
async def begin():
    global ticks, ticking
    ticks, ticking = [], asyncio.create_task(tick())

@on_stop
async def finish(): note(f"ticks {not ticking.done()}")

@node
async def wait_for_ticks() -> int:
    before = len(ticks)
    while len(ticks) < before + 3: await asyncio.sleep(0.001)
    return 1
"""
    pid = start(end, hooks)
    end.ready()
    for token in (1, 3):
        end.send(run_call(token, 1 + CALL["add"], 1, 2))
        assert end.value() == (token, 3)
        end.send(run_call(token + 1, 0))
        assert end.value() == (token + 1, 1)
    end.send(Stop())
    assert [fifo.line(), fifo.line()] == ["ticks True", "ticked"]
    assert reap(pid) == "exit status 0"


@pytest.mark.parametrize(
    "hook",
    [
        "def load_model(): raise ValueError('no model')",
        "async def load_model(): raise ValueError('no model')",
        "def load_model(): sys.exit('no model')",
    ],
)
def test_a_start_hook_that_fails_ends_the_worker_before_it_is_ready(
    start: Start, end: BrokerEnd, hook: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = "@on_stop\ndef never(): note('stopped')"
    pid = start(end, f"@on_start\n{hook}\n{stop}")
    end.wait_for_end()
    assert reap(pid) == f"exit status {EXIT_START_HOOK}"
    error = capfd.readouterr().err
    assert "worker 4 does not serve: start hook shop.load_model failed\n  Traceback" in error
    frames = [line.strip() for line in error.splitlines() if line.startswith("    File ")]
    assert [("shop.py" in frame, frame.endswith("in load_model")) for frame in frames] == [
        (True, True)
    ]
    assert "no model" in error


def test_a_child_that_comes_back_from_a_start_hook_is_no_worker(
    start: Start, end: BrokerEnd
) -> None:
    pid = start(end, "@on_start\ndef fork(): os.fork()\n")
    assert end.ready().pid == pid
    end.send(run_call(1, CALL["add"], 1, 2))
    assert end.value() == (1, 3)
    end.send(Stop())
    assert reap(pid) == "exit status 0"
    assert os.waitpid(-1, 0)[1] == 0  # the child, which became ours


@pytest.mark.slow
def test_a_stop_hook_that_blocks_is_ended_with_a_dump_of_its_stack(
    start: Start, end: BrokerEnd, fifo: Fifo, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = """
import pronghorn.worker.process as process
process._END_S = 0.2

@on_stop
def block():
    note("blocks")
    sum(range(10**12))  # in C, with the GIL held
"""
    pid = start(end, hooks)
    end.ready()
    end.send(Stop())
    assert fifo.line() == "blocks"
    begun = monotonic()
    assert reap(pid) == "exit status 1"
    assert monotonic() - begun < 5.0
    assert "in block" in capfd.readouterr().err


# --- exceptions from outside -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["break_the_link", "break_the_link_later", "break_the_link_and_wait", "fill_the_link"],
)
def test_a_worker_that_can_not_trust_itself_ends_and_says_why(
    start: Start, end: BrokerEnd, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = start(end, "")
    end.ready()
    end.send(run_call(1, CALL[name]))
    if name == "break_the_link_and_wait":
        assert isinstance(end.message(), Nested)
        end.send(CancelRun(99))
    end.wait_for_end()
    assert reap(pid) == "exit status 1"
    error = capfd.readouterr().err
    assert "worker 4 ends: an exception outside of any node\n  Traceback" in error
    assert "RuntimeError: no way" in error


def test_a_worker_whose_loop_is_ended_by_users_code_ends_and_says_why(
    start: Start, end: BrokerEnd, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = start(end, "")
    end.ready()
    end.send(run_call(1, CALL["end_the_program"]))
    end.wait_for_end()
    assert reap(pid) == "exit status 1"
    error = capfd.readouterr().err
    assert "worker 4 failed\n  Traceback" in error
    assert "SystemExit: so long" in error


def test_stop_hooks_are_not_for_a_worker_that_is_killed(
    start: Start, end: BrokerEnd, fifo: Fifo
) -> None:
    pid = start(end, "@on_start\ndef hang():\n    note('hangs')\n    time.sleep(1000)\n")
    assert fifo.line() == "hangs"
    kill(pid, signal.SIGTERM)
    assert reap(pid) == "signal 15 (SIGTERM)"
    end.wait_for_end()
