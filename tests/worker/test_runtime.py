"""Mirror of worker/runtime.py: one worker in a thread of this process, its broker played here."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from types import FrameType
from typing import Any

import pytest
import uvloop
from broker_ends import PATIENCE_S, BrokerEnd, run_call, run_chunk
from msgspec import Raw
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.items import Mark
from pronghorn.broker.wire.link import (
    CODEC_MSGPACK,
    CancelRun,
    ChunkDone,
    Done,
    Failed,
    Ready,
    RunCall,
    Skipped,
    Stop,
    pack,
)
from pronghorn.broker.wire.references import Reference
from pronghorn.broker.wire.slots import SlotState
from pronghorn.broker.wire.values import encode_params
from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.runtime import WorkerRuntime
from pronghorn.worker.shared import SharedFolder

RESULT_BYTES = 64 * 1024 * 1024


def strike(frame: FrameType, event: str, argument: object) -> None:
    """Raise where the clock is read next, as a handler of a signal could: outside of any node."""
    if argument is monotonic_ns:
        sys.setprofile(None)
        raise TimeoutError("struck")


async def add_slowly(a: int, b: int) -> int:
    await asyncio.sleep(0.001)
    return a + b


class Nodes:
    """Nodes that a test holds the strings of."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Event()
        self.notes: list[str] = []

        @node
        def add(a: int, b: int) -> int:
            return a + b

        @node
        def block() -> str:
            self.begun.set()
            assert self.opened.wait(PATIENCE_S)
            return "unblocked"

        @node
        async def pause() -> str:
            self.notes.append("paused")
            try:
                await asyncio.Event().wait()
            finally:
                self.notes.append("cleaned up")
            return "never"

        @node
        async def soon(a: int) -> int:
            for _ in range(3):
                await asyncio.sleep(0)
            return a

        @node(thread=True)
        def beside(ctx: Context) -> bool:
            self.begun.set()
            assert self.opened.wait(PATIENCE_S)
            return ctx.cancelled

        @node
        def reverse(data: bytes) -> bytes:
            return data[::-1]

        @node
        def large(size: int) -> bytes:
            return bytes(size)

        @node
        def spin(microseconds: int) -> None:
            end = monotonic() + microseconds / 1e6
            while monotonic() < end:
                pass

        @node
        def note(word: str) -> None:
            self.notes.append(word)

        @node
        def with_a_loop(kind: str, a: int) -> int:
            if kind == "asyncio":
                return asyncio.run(add_slowly(a, 1))
            if kind == "uvloop":
                return uvloop.run(add_slowly(a, 1))
            loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(add_slowly(a, 1))
            finally:
                loop.close()

        @node(thread=True)
        def with_a_loop_in_thread(a: int) -> int:
            return asyncio.run(add_slowly(a, 1))

        @node
        def which_loop() -> str:
            asyncio.get_running_loop()
            return "one"

        @node
        async def callback_sees_the_loop() -> bool:
            """Ask in a callback, which has no task that would set anything."""
            loop = asyncio.get_running_loop()
            seen = loop.create_future()
            loop.call_later(0.001, lambda: seen.set_result(asyncio._get_running_loop() is loop))
            return await seen

        @node
        def be_struck() -> None:
            sys.setprofile(strike)

        @node
        async def be_struck_later() -> None:
            await asyncio.sleep(0)
            sys.setprofile(strike)

        @node(thread=True)
        def be_struck_in_thread() -> None:
            sys.setprofile(strike)

        @node
        async def swallow() -> None:
            self.notes.append("begun")
            while not self.opened.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    self.notes.append("swallowed")

        functions = (
            *(add, block, pause, soon, beside, reverse, large, spin, note),
            *(with_a_loop, with_a_loop_in_thread, which_loop, callback_sees_the_loop),
            *(be_struck, be_struck_later, be_struck_in_thread, swallow),
        )
        self.table = DispatchTable.of({f"nodes.{one.__name__}": one for one in functions})
        self.index = {one.__name__: index for index, one in enumerate(functions)}


class Running(BrokerEnd):
    """A worker that runs in a thread."""

    def __init__(self, shared: str = "") -> None:
        super().__init__()
        self.nodes = Nodes()
        self.loop = uvloop.new_event_loop()
        self.runtime = WorkerRuntime(
            worker_id=5,
            table=self.nodes.table,
            link=socket.socket(fileno=self.link_fd),
            page_fd=self.page_fd,
            result_bytes=RESULT_BYTES,
            loop=self.loop,
            shared=shared,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run()
            self.runtime.cancel_all()
        finally:
            self.runtime.close()
            self.loop.close()

    def call(self, token: int, name: str, *params: Any) -> None:
        self.send(run_call(token, self.nodes.index[name], *params))

    def state(self, token: int) -> SlotState:
        return self.page.state(token, token)

    def joined(self) -> bool:
        self.thread.join(PATIENCE_S)
        return not self.thread.is_alive()


@contextmanager
def a_worker(shared: str = "") -> Iterator[Running]:
    running = Running(shared)
    try:
        yield running
    finally:
        running.nodes.opened.set()
        running.close()
        assert running.joined()


@pytest.fixture
def worker() -> Iterator[Running]:
    with a_worker() as running:
        running.ready()
        yield running


def test_the_first_word_tells_what_it_serves() -> None:
    with a_worker() as worker:
        assert worker.message() == Ready(5, os.getpid(), worker.nodes.table.digest)


def test_a_call_is_claimed_run_and_finished(worker: Running) -> None:
    assert worker.state(1) is SlotState.HELD
    worker.call(1, "add", 1, 2)
    assert worker.value() == (1, 3)
    assert worker.state(1) is SlotState.FINISHED
    assert worker.page.started_ns(1) > 0


def test_calls_are_answered_in_their_order(worker: Running) -> None:
    worker.send_together(*(run_call(i, 0, i, 1, slot=i % 64) for i in range(1, 200)))
    assert [worker.value() for _ in range(1, 200)] == [(i, i + 1) for i in range(1, 200)]


def test_a_call_that_trickles_in_is_run_when_it_is_complete(worker: Running) -> None:
    for byte in pack(run_call(1, worker.nodes.index["add"], 1, 2)):
        worker.socket.sendall(bytes([byte]))
    assert worker.value() == (1, 3)


def test_a_result_leaves_before_the_next_call_begins(worker: Running) -> None:
    nodes = worker.nodes.index
    worker.send_together(run_call(1, nodes["add"], 1, 2), run_call(2, nodes["block"]))
    assert worker.value() == (1, 3)
    assert worker.nodes.begun.wait(PATIENCE_S)
    assert worker.state(2) is SlotState.STARTED
    worker.nodes.opened.set()
    assert worker.value() == (2, "unblocked")


def test_what_was_taken_back_in_time_is_skipped(worker: Running) -> None:
    nodes = worker.nodes.index
    worker.send_together(run_call(1, nodes["block"]), run_call(2, nodes["note"], "ran"))
    assert worker.nodes.begun.wait(PATIENCE_S)
    assert worker.page.revoke(2, 2)
    assert not worker.page.revoke(1, 1)  # it has begun
    worker.nodes.opened.set()
    assert worker.value() == (1, "unblocked")
    assert worker.message() == Skipped(2)
    assert worker.nodes.notes == []


def test_a_chunk(worker: Running) -> None:
    worker.send(run_chunk(1, worker.nodes.index["add"], [1, 2], {"a": 3, "b": 4}, [5, "x"]))
    message = worker.message()
    assert isinstance(message, ChunkDone)
    assert decode(message.values) == [3, 7, None]
    assert Mark.of(worker.page.mark(1)).items == 3
    assert worker.state(1) is SlotState.FINISHED
    worker.send(run_chunk(2, worker.nodes.index["soon"], *([i] for i in range(100))))
    message = worker.message()
    assert isinstance(message, ChunkDone)
    assert decode(message.values) == list(range(100))


def test_buffers_come_with_their_call(worker: Running) -> None:
    body, buffers = encode_params({"data": bytes(range(256)) * 1000})
    index = worker.nodes.index["reverse"]
    worker.send(
        RunCall(1, 1, index, CODEC_MSGPACK, Raw(body), None, len(buffers)),
        [bytes(one) for one in buffers],
    )
    message, out = worker.receive()
    assert isinstance(message, Done)
    assert message.buffers == 1
    assert [bytes(one) for one in out] == [(bytes(range(256)) * 1000)[::-1]]


@pytest.mark.parametrize("size", [40_000, 3_000_000])
def test_what_a_full_link_does_not_take_follows_in_order(worker: Running, size: int) -> None:
    count = 20
    worker.send_together(
        *(run_call(i, worker.nodes.index["large"], size) for i in range(1, count)),
        run_call(count, worker.nodes.index["block"]),
    )
    assert worker.nodes.begun.wait(PATIENCE_S)  # all others have run, and nothing was read yet
    worker.nodes.opened.set()
    for token in range(1, count):
        message, buffers = worker.receive()
        assert isinstance(message, Done)
        assert message.token == token
        assert len(buffers[0] if buffers else decode(message.value)) == size
    assert worker.value() == (count, "unblocked")
    worker.call(count + 1, "add", 1, 2)
    assert worker.value() == (count + 1, 3)


# --- loops in nodes ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "by hand"])
def test_a_def_may_run_a_loop_of_its_own(worker: Running, kind: str) -> None:
    for token in (1, 2):
        worker.call(token, "with_a_loop", kind, 4)
        assert worker.value() == (token, 5)
    worker.send(run_chunk(3, worker.nodes.index["with_a_loop"], [kind, 1], {"kind": kind, "a": 2}))
    message = worker.message()
    assert isinstance(message, ChunkDone)
    assert decode(message.values) == [2, 3]
    worker.call(4, "with_a_loop_in_thread", 4)
    assert worker.value() == (4, 5)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "by hand"])
def test_coroutines_go_on_when_a_def_has_run_a_loop_of_its_own(worker: Running, kind: str) -> None:
    nodes = worker.nodes.index
    worker.send_together(
        run_call(1, nodes["soon"], 1),
        run_call(2, nodes["callback_sees_the_loop"]),
        run_call(3, nodes["with_a_loop"], kind, 2),
        run_call(4, nodes["soon"], 4),
        run_call(5, nodes["add"], 1, 2),
    )
    results = dict(worker.value() for _ in range(5))
    assert results == {1: 1, 2: True, 3: 3, 4: 4, 5: 3}
    worker.call(6, "with_a_loop", kind, 6)
    worker.call(7, "callback_sees_the_loop")
    assert dict([worker.value(), worker.value()]) == {6: 7, 7: True}


@pytest.mark.parametrize("after_a_coroutine", [False, True])
def test_a_def_sees_no_running_loop(worker: Running, after_a_coroutine: bool) -> None:
    if after_a_coroutine:
        worker.call(1, "soon", 1)
        assert worker.value() == (1, 1)
    for token in (2, 3):
        worker.call(token, "which_loop")
        message = worker.message()
        assert isinstance(message, Failed)
        assert message.message == "no running event loop"


# --- nodes that run beside others --------------------------------------------------------------


def test_coroutines_run_beside_each_other_and_beside_calls(worker: Running) -> None:
    worker.call(1, "pause")
    worker.call(2, "soon", 7)
    worker.call(3, "add", 1, 2)
    assert sorted([worker.value(), worker.value()]) == [(2, 7), (3, 3)]
    assert worker.state(1) is SlotState.STARTED


def test_threads_run_beside_calls(worker: Running) -> None:
    worker.call(1, "beside")
    assert worker.nodes.begun.wait(PATIENCE_S)
    worker.call(2, "add", 1, 2)
    assert worker.value() == (2, 3)
    worker.nodes.opened.set()
    assert worker.value() == (1, False)
    assert worker.state(1) is SlotState.FINISHED


def test_a_coroutine_gets_its_turn_while_many_calls_wait(worker: Running) -> None:
    spin = worker.nodes.index["spin"]
    worker.send_together(
        run_call(1, worker.nodes.index["soon"], 9), *(run_call(i, spin, 400) for i in range(2, 40))
    )
    tokens = []
    for _ in range(39):
        message = worker.message()
        assert isinstance(message, Done)
        tokens.append(message.token)
    assert 1 in tokens[:20]
    assert [token for token in tokens if token != 1] == list(range(2, 40))


# --- exceptions from outside -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["be_struck", "be_struck_later", "be_struck_in_thread"])
def test_what_strikes_outside_of_a_node_is_a_last_word(worker: Running, name: str) -> None:
    worker.call(1, name)
    message = worker.message()
    assert isinstance(message, Failed)
    assert (message.token, message.code, message.message) == (1, "NODE_ERROR", "struck")
    assert message.details.outcome == "maybe_executed"
    assert worker.state(1) is SlotState.FINISHED
    worker.call(2, "add", 1, 2)
    assert worker.value() == (2, 3)


# --- cancelling --------------------------------------------------------------------------------


def test_a_running_coroutine_is_cancelled(worker: Running) -> None:
    worker.call(1, "pause")
    worker.call(2, "add", 1, 2)
    assert worker.value() == (2, 3)
    worker.send(CancelRun(1))
    message = worker.message()
    assert isinstance(message, Failed)
    assert (message.token, message.code) == (1, "CANCELLED")
    assert worker.nodes.notes == ["paused", "cleaned up"]
    assert worker.state(1) is SlotState.FINISHED


def test_a_coroutine_cancelled_before_its_first_step_never_ran(worker: Running) -> None:
    worker.send_together(run_call(1, worker.nodes.index["pause"]), CancelRun(1))
    assert worker.message() == Skipped(1)
    assert worker.nodes.notes == []


def test_a_thread_is_told_that_nobody_waits(worker: Running) -> None:
    worker.call(1, "beside")
    assert worker.nodes.begun.wait(PATIENCE_S)
    worker.send_together(CancelRun(1), run_call(2, worker.nodes.index["add"], 1, 2))
    assert worker.value() == (2, 3)
    worker.nodes.opened.set()
    assert worker.value() == (1, True)


def test_a_cancel_that_comes_late_or_never_fits_is_nothing(worker: Running) -> None:
    worker.call(1, "add", 1, 2)
    assert worker.value() == (1, 3)
    worker.send_together(CancelRun(1), CancelRun(99), run_call(2, 0, 3, 4))
    assert worker.value() == (2, 7)


# --- the end -----------------------------------------------------------------------------------


def test_the_end_of_the_link_is_the_end(worker: Running) -> None:
    worker.call(1, "pause")
    worker.call(2, "add", 1, 2)
    assert worker.value() == (2, 3)
    worker.socket.close()
    assert worker.joined()
    assert worker.nodes.notes == ["paused", "cleaned up"]


def test_a_coroutine_that_swallows_its_cancellation_holds_nobody_up(worker: Running) -> None:
    worker.call(1, "swallow")
    worker.call(2, "add", 1, 2)
    assert worker.value() == (2, 3)
    worker.socket.close()
    assert worker.joined()
    assert worker.nodes.notes == ["begun", "swallowed"]
    assert not worker.nodes.opened.is_set()


def test_told_to_stop_it_finishes_what_has_begun(worker: Running) -> None:
    worker.call(1, "beside")
    assert worker.nodes.begun.wait(PATIENCE_S)
    worker.send(Stop())
    worker.nodes.opened.set()
    assert worker.value() == (1, False)
    assert worker.joined()


def test_told_to_stop_when_idle_it_ends_at_once(worker: Running) -> None:
    worker.send(Stop())
    assert worker.joined()


def test_told_to_stop_it_ends_only_when_the_link_has_taken_all(worker: Running) -> None:
    worker.call(1, "large", 3_000_000)
    worker.call(2, "beside")
    assert worker.nodes.begun.wait(PATIENCE_S)
    worker.send(Stop())
    worker.nodes.opened.set()
    words = {}
    for _ in range(2):
        message, buffers = worker.receive()
        assert isinstance(message, Done)
        words[message.token] = len(buffers[0]) if buffers else decode(message.value)
    assert words == {1: 3_000_000, 2: False}
    assert worker.joined()


def test_garbage_on_the_link_is_the_end(worker: Running, caplog: pytest.LogCaptureFixture) -> None:
    worker.socket.sendall(b"\x03\0\0\0abc")
    assert worker.joined()
    assert "worker 5 can't read its link and ends" in caplog.text


def test_a_result_for_a_broker_that_has_gone_is_the_end(worker: Running) -> None:
    worker.call(1, "block")
    assert worker.nodes.begun.wait(PATIENCE_S)
    worker.socket.close()
    worker.nodes.opened.set()
    assert worker.joined()


def test_large_values_of_ended_runs_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pronghorn.worker.runtime._FORGET_S", 0.01)
    folder = SharedFolder(str(tmp_path))
    content = encode("large")
    reference = Reference(1, bytes(16), len(content))
    folder.write(reference, content)
    with a_worker(shared=str(tmp_path)) as worker:
        worker.ready()
        params = b"\x81\xa4word" + reference.encode()
        for token in (1, 2):
            index = worker.nodes.index["note"]
            worker.send(RunCall(token, token, index, CODEC_MSGPACK, Raw(params), None))
            assert worker.value() == (token, None)
        values = worker.runtime._values
        assert worker.nodes.notes == ["large"] * 2
        assert worker.nodes.notes[0] is worker.nodes.notes[1]
        assert values.references() == {reference}
        folder.remove(reference)
        end = monotonic() + PATIENCE_S
        while values.references():
            assert monotonic() < end
            sleep(0.01)
