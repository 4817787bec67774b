"""Mirror of worker/local.py and local_host, _requests, _transport, _aio: what is only its own.

What it has in common with `Pool` is in tests/client.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import client_nodes
import pytest
from trees import PATIENCE_S, Fifo

from pronghorn.broker.wire.embedding import StopImport, import_of_nodes
from pronghorn.broker.wire.limits import BUFFER_BYTES_MIN, BUFFERS_PER_REQUEST_MAX, KIB, Limits
from pronghorn.client import (
    BrokerLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    JournalError,
    NodeError,
    NotFoundError,
    PoolStartError,
)
from pronghorn.worker.local import LocalPool
from pronghorn.worker.loops import GRACE_S

LOCAL_NODES = """
import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

import uvloop

from pronghorn.worker import Context, node

seen = []

@node
def append(values: list) -> list:
    seen.append(values)
    values.append("appended")
    return values

@node
def remembered() -> list:
    return seen

@node
def current_thread() -> str:
    return threading.current_thread().name

@node(thread=True)
def current_thread_threaded() -> str:
    return threading.current_thread().name

@node
async def current_thread_async() -> str:
    return threading.current_thread().name

@node
def interrupted() -> None:
    raise KeyboardInterrupt

@node
async def cancels_itself() -> None:
    raise asyncio.CancelledError

@node
async def stubborn(fifo: str) -> None:
    with open(fifo, "w", buffering=1) as out:  # once: nobody may read any more when it is cancelled
        while True:
            out.write("waiting\\n")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

@node
async def block(begun: str, opened: str) -> None:
    Path(begun).write_text("blocked\\n")
    Path(opened).read_text()

@node
def with_a_loop(a: int) -> int:
    return asyncio.run(asyncio.sleep(0.001, a)) + uvloop.run(asyncio.sleep(0.001, a))

@node(thread=True)
def with_a_loop_threaded(a: int) -> int:
    return asyncio.run(asyncio.sleep(0.001, a))

@dataclass
class Interrupting:
    a: int
    def __post_init__(self):
        raise KeyboardInterrupt

@node
def take(given: Interrupting) -> None: ...

contexts = []

@node
async def in_context(ctx: Context) -> None:
    contexts.append(ctx)
    await asyncio.Event().wait()

@node
def cancelled_contexts() -> list[bool]:
    return [context.cancelled for context in contexts]

@node
async def calls_back() -> None:
    callback()

callback = None
"""


@pytest.fixture(scope="module")
def nodes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("local") / "local_nodes.py"
    file.write_text(LOCAL_NODES)
    return file


@pytest.fixture
def pool(nodes_file: Path) -> Iterator[LocalPool]:
    with LocalPool(nodes_file, client_nodes.FILE) as pool:
        yield pool


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


class Gate:
    """A named pipe where a node that reads it waits until it is opened."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._writer: int | None = None

    def wait(self) -> None:
        """Wait until a node waits."""
        self._writer = os.open(self.path, os.O_WRONLY)

    def open(self) -> None:
        """Let the node go on."""
        if self._writer is None:
            self.wait()
        assert self._writer is not None
        os.close(self._writer)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


# --- the pool -----------------------------------------------------------------------------------


def test_what_a_pool_tells(nodes_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken_nodes.py"
    broken.write_text("import no_such_module\n")
    with LocalPool(nodes_file, broken, workers=3) as pool:
        assert pool.workers == 3
        assert pool.endpoint == "local:"
        assert pool.endpoints == pool.warnings == ()
        (failure,) = pool.failures
        assert failure.module == str(broken)
        assert "No module named 'no_such_module'" in failure.reason
        assert pool.client().endpoint == pool.async_client().endpoint == "local:"


def test_what_can_be_no_pool(nodes_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken_nodes.py"
    broken.write_text("import no_such_module\n")
    with pytest.raises(
        PoolStartError, match=r"no node can be served from .*broken_nodes"
    ) as caught:
        LocalPool(broken)
    assert [failure.module for failure in caught.value.failures] == [str(broken)]
    with pytest.raises(InvalidArgumentError, match="at least one module"):
        LocalPool()
    with pytest.raises(InvalidArgumentError, match="workers is 0; a pool needs at least 1"):
        LocalPool(nodes_file, workers=0)
    with import_of_nodes(), pytest.raises(StopImport):
        LocalPool(nodes_file)


def test_a_pool_that_is_not_used_starts_nothing(nodes_file: Path) -> None:
    before = threading.active_count()
    with LocalPool(nodes_file) as pool, pool.client() as client:
        assert client.call("remembered") == []
        assert threading.active_count() == before


# --- where nodes run ----------------------------------------------------------------------------


def test_nothing_is_recorded(pool: LocalPool) -> None:
    with pool.client() as client:
        durable = client.within(durability="sync")
        with pytest.raises(JournalError, match="an in-process pool has no journal"):
            durable.call("add", 1, 2)
        with pytest.raises(JournalError):
            durable.submit("add", 1, 2).result(PATIENCE_S)
        with pytest.raises(JournalError):
            list(durable.map("add", [(1, 2)]))
        assert durable.within(durability=None).call("add", 1, 2) == 3


def test_where_nodes_of_a_sync_client_run(pool: LocalPool) -> None:
    client = pool.client()
    here = threading.current_thread().name
    assert client.call("current_thread") == here
    assert client.call("current_thread_threaded") == here
    assert list(client.map("current_thread", [()])) == [here]
    assert client.call("current_thread_async") == "pronghorn-local-loop"
    assert client.submit("current_thread").result(PATIENCE_S).startswith("pronghorn-local_")
    assert client.submit("current_thread_async").result(PATIENCE_S) == "pronghorn-local-loop"


async def test_where_nodes_of_an_async_client_run(pool: LocalPool) -> None:
    client = pool.async_client()
    here = threading.current_thread().name
    assert await client.call("current_thread") == here
    assert await client.call("current_thread_async") == here
    assert await client.call("current_thread_threaded") != here
    names = [name async for name in client.map("current_thread_threaded", [()])]
    assert here not in names


def test_values_are_not_shared(pool: LocalPool) -> None:
    client = pool.client()
    given = ["given"]
    result = client.call("append", given)
    assert given == ["given"]
    result.append("more")
    assert client.call("remembered")[-1] == ["given", "appended"]
    content = bytearray(b"x" * BUFFER_BYTES_MIN)
    result = client.call("echo", memoryview(content))
    content[:1] = b"y"
    assert result == b"x" * BUFFER_BYTES_MIN


def test_too_many_buffers(pool: LocalPool) -> None:
    limits = Limits(buffers=1)
    with (
        LocalPool(client_nodes.FILE, limits=limits) as pool,
        pool.client() as client,
        pytest.raises(InvalidArgumentError, match="2 buffers, the limit is 1"),
    ):
        client.call("add", bytes(64 * KIB), bytes(64 * KIB))
    assert BUFFERS_PER_REQUEST_MAX > 1


# --- loops in nodes -----------------------------------------------------------------------------


def test_a_def_may_run_a_loop_of_its_own(pool: LocalPool) -> None:
    client = pool.client()
    assert client.call("with_a_loop", 2) == 4
    assert client.call("with_a_loop_threaded", 2) == 2
    assert client.submit("with_a_loop", 2).result(PATIENCE_S) == 4
    assert list(client.map("with_a_loop", [(1,), (2,)])) == [2, 4]


async def test_a_def_may_run_a_loop_of_its_own_where_one_runs(pool: LocalPool) -> None:
    client = pool.async_client()
    beside = asyncio.create_task(client.call("add_async", 1, 2))
    assert await client.call("with_a_loop", 2) == 4
    assert await client.call("with_a_loop_threaded", 2) == 2
    assert [value async for value in client.map("with_a_loop", [(1,), (2,)])] == [2, 4]
    assert pool.client().call("with_a_loop", 3) == 6
    assert await beside == 3


# --- interrupts ---------------------------------------------------------------------------------


def test_an_interrupt_in_a_node_ends_the_program_s_work_and_not_the_node_s(
    pool: LocalPool,
) -> None:
    client = pool.client()
    with pytest.raises(KeyboardInterrupt):
        client.call("interrupted")
    with pytest.raises(KeyboardInterrupt):
        list(client.map("interrupted", [()] * 3, return_exceptions=True))
    error = client.submit("interrupted").exception(PATIENCE_S)
    assert isinstance(error, NodeError), "in a thread it is the node that raises it"
    assert error.exception == "KeyboardInterrupt"


def test_an_interrupt_while_params_are_decoded(pool: LocalPool) -> None:
    client = pool.client()
    with pytest.raises(KeyboardInterrupt):
        client.call("take", {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        list(client.map("take", [[{"a": 1}]], return_exceptions=True))
    error = client.submit("take", {"a": 1}).exception(PATIENCE_S)
    assert isinstance(error, InvalidArgumentError)


def test_ctrl_c_in_a_def_node(pool: LocalPool, fifo: Fifo) -> None:
    def interrupt() -> None:
        gate.wait(PATIENCE_S)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    gate = threading.Event()
    client = pool.client()
    with ThreadPoolExecutor(1) as thread:
        interrupted = thread.submit(interrupt)
        gate.set()
        with pytest.raises(KeyboardInterrupt):
            client.call("hold", fifo.path)
        interrupted.result()


# --- async nodes --------------------------------------------------------------------------------


def test_a_node_that_cancels_itself(pool: LocalPool) -> None:
    with pytest.raises(NodeError) as caught:
        pool.client().call("cancels_itself")
    assert caught.value.exception == "asyncio.exceptions.CancelledError"
    assert caught.value.outcome == "executed"


def test_a_node_that_does_not_end_when_cancelled_is_left_alone(pool: LocalPool, fifo: Fifo) -> None:
    begun = monotonic()
    with pytest.raises(DeadlineExceededError):
        pool.client().call("stubborn", fifo.path, timeout_s=0.05)
    assert monotonic() - begun < 0.5
    assert [fifo.line(), fifo.line()] == ["waiting", "waiting"]


def test_contexts_are_told_of_the_deadline(pool: LocalPool) -> None:
    client = pool.client()
    with pytest.raises(DeadlineExceededError):
        client.call("local_nodes.in_context", timeout_s=0.02)
    assert client.call("cancelled_contexts")[-1] is True


def test_an_async_node_that_waits_for_another_one_is_refused(
    pool: LocalPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import local_nodes  # type: ignore[import-not-found]

    client = pool.client()
    monkeypatch.setattr(local_nodes, "callback", lambda: client.call("current_thread_async"))
    with pytest.raises(NodeError, match="would wait for ever"):
        client.call("calls_back")
    monkeypatch.setattr(local_nodes, "callback", lambda: client.call("current_thread"))
    assert client.call("calls_back") is None


# --- the end ------------------------------------------------------------------------------------


def test_closing_ends_open_calls_and_refuses_what_waits(nodes_file: Path, fifo: Fifo) -> None:
    pool = LocalPool(nodes_file, client_nodes.FILE, workers=1)
    client = pool.client()
    with ThreadPoolExecutor(2) as threads:
        called = threads.submit(client.call, "linger", fifo.path)
        mapped = threads.submit(lambda: list(client.map("linger", [(fifo.path,)])))
        submitted = client.submit("linger", fifo.path)
        assert [fifo.line() for _ in range(3)] == ["begun"] * 3
        running = client.submit("nap", 0.05)
        waiting = [client.submit("add", 1, 2) for _ in range(3)]
        pool.close()
        pool.close()
        for future in called, mapped, submitted:
            error = future.exception(PATIENCE_S)
            assert isinstance(error, BrokerLostError)
            assert (error.message, error.outcome) == ("the pool is closed", "maybe_executed")
    assert [fifo.line() for _ in range(3)] == ["cancelled"] * 3
    assert running.exception(0) is None or isinstance(running.exception(0), BrokerLostError)
    for future in waiting:
        error = future.exception(0)
        assert isinstance(error, BrokerLostError)
        assert error.outcome == "not_started"


def test_a_closed_pool_refuses_everything(nodes_file: Path) -> None:
    pool = LocalPool(nodes_file, client_nodes.FILE)
    client = pool.client()
    started = client.map("add", [(1, 2), (3, 4)], chunk_size=1)
    assert next(started) == 3
    pool.close()
    for attempt in (
        lambda: client.call("add", 1, 2),
        lambda: client.call("add_async", 1, 2),
        lambda: client.submit("add", 1, 2),
        lambda: client.submit("add_async", 1, 2),
        lambda: list(client.map("add", [(1, 2)])),
        lambda: client.nodes(),
        lambda: client.ping(),
        lambda: pool.client().__enter__(),
    ):
        with pytest.raises(BrokerLostError, match="the pool is closed") as caught:
            attempt()
        assert caught.value.outcome == "not_started"
    with pytest.raises(BrokerLostError, match="the pool is closed"):
        next(started)
    with pytest.raises(BrokerLostError, match="the pool is closed"):
        asyncio.run(pool.async_client().call("add", 1, 2))


def let_go(gate: Gate, name: str) -> None:
    """Let a thread go on that a closed pool has left alone, and wait for its end."""
    *_, left = (thread for thread in threading.enumerate() if thread.name == name)  # the newest
    assert left.daemon, "or it would keep the program alive"
    gate.open()
    left.join(PATIENCE_S)
    assert not left.is_alive()


@pytest.mark.slow
def test_closing_waits_for_stubborn_nodes_only_so_long(
    nodes_file: Path, fifo: Fifo, caplog: pytest.LogCaptureFixture
) -> None:
    pool = LocalPool(nodes_file, client_nodes.FILE)
    submitted = pool.client().submit("stubborn", fifo.path)
    assert fifo.line() == "waiting"
    begun = monotonic()
    pool.close()
    assert GRACE_S <= monotonic() - begun < 1.5 * GRACE_S
    assert isinstance(submitted.exception(0), BrokerLostError)
    assert "1 async tasks go on although they were cancelled" in caplog.text


@pytest.mark.slow
def test_closing_waits_for_a_blocked_loop_only_so_long(
    nodes_file: Path, fifo: Fifo, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    pool = LocalPool(nodes_file)
    client = pool.client()
    with ThreadPoolExecutor(1) as thread:
        called = thread.submit(client.call, "block", fifo.path, gate.path)
        assert fifo.line() == "blocked"
        submitted = client.submit("current_thread_async")
        begun = monotonic()
        pool.close()
        assert monotonic() - begun < 2.5 * GRACE_S
        for future in called, submitted:
            error = future.exception(PATIENCE_S)
            assert isinstance(error, BrokerLostError)
            assert error.outcome == "maybe_executed"
    assert "the loop of async nodes is blocked" in caplog.text
    let_go(gate, "pronghorn-local-loop")


@pytest.mark.slow
def test_closing_waits_for_submitted_calls_only_so_long(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    pool = LocalPool(client_nodes.FILE, workers=1)
    client = pool.client()
    running = client.submit("hold", gate.path)
    waiting = client.submit("add", 1, 2)
    gate.wait()
    begun = monotonic()
    pool.close()
    assert monotonic() - begun < 1.5 * GRACE_S
    for future, outcome in (running, "maybe_executed"), (waiting, "not_started"):
        error = future.exception(0)
        assert isinstance(error, BrokerLostError)
        assert error.outcome == outcome
    assert "1 submitted calls go on" in caplog.text
    let_go(gate, "pronghorn-local_0")


async def test_closing_ends_async_nodes_of_other_loops(fifo: Fifo) -> None:
    pool = LocalPool(client_nodes.FILE)
    called = asyncio.create_task(pool.async_client().call("linger", fifo.path))
    assert await asyncio.to_thread(fifo.line) == "begun"
    pool.close()
    with pytest.raises(BrokerLostError) as caught:
        await called
    assert caught.value.outcome == "maybe_executed"
    assert fifo.line() == "cancelled"


# --- hooks --------------------------------------------------------------------------------------

HOOKED = """
import asyncio, threading
from pronghorn.worker import node, on_start, on_stop

notes = []

@on_start
def open_model() -> None:
    asyncio.run(asyncio.sleep(0))
    notes.append("open model in " + threading.current_thread().name)

@on_start
async def open_session() -> None:
    global session
    session = asyncio.get_running_loop()
    notes.append("open session")

@on_stop
def close_model() -> None:
    notes.append("close model in " + threading.current_thread().name)

@on_stop
async def close_session() -> None:
    notes.append(f"close session {session is asyncio.get_running_loop()}")

@node
async def same_loop() -> bool:
    return session is asyncio.get_running_loop()

@node
async def linger() -> None:
    try:
        notes.append("lingers")
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        notes.append("lingered")
"""


@pytest.fixture
def hooked(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "hooked_nodes.py"
    file.write_text(HOOKED)
    yield file
    sys.modules.pop("hooked_nodes", None)


def test_hooks_run_where_the_pool_is_made_and_closed(hooked: Path) -> None:
    here = threading.current_thread().name
    with LocalPool(hooked) as pool:
        notes = sys.modules["hooked_nodes"].notes
        assert notes == [f"open model in {here}", "open session"]
        client = pool.client()
        assert client.call("same_loop")
        submitted = client.submit("linger")
        assert client.call("same_loop")  # so it has begun
        pool.close()
    assert notes[2:] == ["lingers", "lingered", "close session True", f"close model in {here}"]
    assert isinstance(submitted.exception(0), BrokerLostError)


async def test_hooks_of_a_pool_that_is_made_on_a_loop(hooked: Path) -> None:
    with LocalPool(hooked) as pool:
        assert len(sys.modules["hooked_nodes"].notes) == 2
        assert await pool.async_client().call("same_loop") is False
    assert len(sys.modules["hooked_nodes"].notes) == 4


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_start_hook_that_fails_is_no_pool(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"failing_{kind[:3]}.py"
    file.write_text(HOOKED + f"@on_start\n{kind} load() -> None: raise ValueError('no model')\n")
    before = threading.active_count()
    with pytest.raises(PoolStartError, match=rf"start hook {file.stem}\.load failed") as caught:
        LocalPool(file)
    assert "ValueError: no model" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(sys.modules.pop(file.stem).notes) == 2, "stop hooks are for who has started"
    assert threading.active_count() == before


def test_a_stop_hook_that_fails_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "failing_stop.py"
    file.write_text(HOOKED + "@on_stop\nasync def save() -> None: raise ValueError('disk full')\n")
    LocalPool(file).close()
    assert len(sys.modules.pop("failing_stop").notes) == 4
    assert "stop hook failing_stop.save failed" in caplog.text
    assert "disk full" in caplog.text


# --- others -------------------------------------------------------------------------------------


def test_an_unknown_node_is_found_out_in_the_future(pool: LocalPool) -> None:
    assert isinstance(pool.client().submit("no_such").exception(PATIENCE_S), NotFoundError)


def test_many_threads(pool: LocalPool) -> None:
    client = pool.client()
    with ThreadPoolExecutor(8) as threads:
        for name in "add", "add_async":
            answers = [threads.submit(client.call, name, index, 1) for index in range(100)]
            assert [answer.result() for answer in answers] == list(range(1, 101))
            submitted: list[Any] = [client.submit(name, index, 1) for index in range(100)]
            assert futures.wait(submitted, PATIENCE_S).not_done == set()
