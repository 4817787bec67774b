"""Mirror of worker/nested.py: one worker in a thread of this process, its broker played here."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest
import uvloop
from broker_ends import PATIENCE_S, BrokerEnd, run_call
from msgspec import Raw
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.errors import CancelledError, DeadlineExceededError, ErrorDetails
from pronghorn.broker.wire.link import (
    CancelNested,
    CancelRun,
    Done,
    Failed,
    Nested,
    NestedDone,
    NestedFailed,
    RunHere,
    Stop,
)
from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.nested import DEPTH_MAX
from pronghorn.worker.runtime import WorkerRuntime


class Nodes:
    """Nodes that call others, and what they saw."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.contexts: list[Context] = []

        @node
        def wait_for(ctx: Context, name: str, arguments: list[Any] | None = None) -> Any:
            self.contexts.append(ctx)
            return ctx.call_sync(name, *(arguments or ()))

        @node
        async def await_for(ctx: Context, name: str, timeout_s: float | None = None) -> Any:
            try:
                return await ctx.call(name, timeout_s=timeout_s)
            except BaseException as error:
                self.notes.append(type(error))
                raise

        @node(thread=True)
        def wait_in_thread(ctx: Context, name: str) -> Any:
            return ctx.call_sync(name)

        @node
        def with_a_loop(ctx: Context, name: str) -> Any:
            return asyncio.run(ctx.call(name))

        @node(thread=True)
        def with_a_loop_in_thread(ctx: Context, name: str) -> Any:
            return asyncio.run(ctx.call(name))

        @node
        async def wait_in_async(ctx: Context, name: str) -> Any:
            return ctx.call_sync(name)

        @node
        async def forever(ctx: Context) -> None:
            self.contexts.append(ctx)
            self.notes.append("begun")
            await asyncio.Event().wait()

        @node
        async def soon() -> str:
            await asyncio.sleep(0)
            return f"{threading.current_thread().name} {type(asyncio.get_running_loop()).__name__}"

        @node(thread=True)
        def where() -> str:
            return threading.current_thread().name

        @node
        def add(a: int, b: int) -> int:
            return a + b

        functions = (
            *(wait_for, await_for, wait_in_thread, with_a_loop, with_a_loop_in_thread),
            *(wait_in_async, forever, soon, where, add),
        )
        self.table = DispatchTable.of({f"nodes.{one.__name__}": one for one in functions})
        self.index = {one.__name__: index for index, one in enumerate(functions)}


class Running(BrokerEnd):
    """A worker that runs in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = Nodes()
        self.loop = uvloop.new_event_loop()
        self.runtime = WorkerRuntime(
            worker_id=5,
            table=self.nodes.table,
            link=socket.socket(fileno=self.link_fd),
            page_fd=self.page_fd,
            result_bytes=1_000_000,
            loop=self.loop,
        )
        self.thread = threading.Thread(target=self._run, name="worker")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run()
            self.runtime.cancel_all()
        finally:
            self.runtime.close()
            self.loop.close()

    def call(self, token: int, name: str, *params: Any, left_ms: float | None = None) -> None:
        self.send(run_call(token, self.nodes.index[name], *params, left_ms=left_ms))

    def nested(self) -> Nested:
        message, _ = self.receive()
        assert isinstance(message, Nested), message
        return message

    def failure(self) -> Failed:
        message = self.message()
        assert isinstance(message, Failed), message
        return message


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as worker:
        worker.ready()
        yield worker
        with suppress(BrokenPipeError):  # it has been stopped
            worker.send(Stop())
        worker.thread.join(PATIENCE_S)
        assert not worker.thread.is_alive()


CALLERS = ("wait_for", "await_for", "wait_in_thread", "with_a_loop", "with_a_loop_in_thread")


@pytest.mark.parametrize("name", CALLERS)
def test_a_call_is_sent_and_its_result_given_back(running: Running, name: str) -> None:
    running.call(9, name, "other", left_ms=60_000.0)
    sent = running.nested()
    waits = name in ("wait_for", "with_a_loop")
    assert (sent.parent, sent.node, sent.waits, sent.depth) == (9, "other", waits, 1)
    assert sent.left_ms is not None
    assert 0 < sent.left_ms <= 60_000.0
    running.send(NestedDone(sent.id, Raw(encode("there"))))
    assert running.value() == (9, "there")


@pytest.mark.parametrize("name", CALLERS)
def test_an_error_is_raised_in_the_caller(running: Running, name: str) -> None:
    running.call(9, name, "other")
    details = ErrorDetails(outcome="not_started")
    running.send(NestedFailed(running.nested().id, "CANCELLED", "it was cancelled", details))
    failed = running.failure()
    assert failed.details.exception == "pronghorn.broker.wire.errors.CancelledError"
    assert "it was cancelled" in failed.message


@pytest.mark.parametrize("name", CALLERS)
@pytest.mark.parametrize("called", ["soon", "where"])
def test_what_nobody_has_room_for_runs_here(running: Running, name: str, called: str) -> None:
    running.call(9, name, called)
    running.send(RunHere(running.nested().id))
    _, place = running.value()
    if called == "soon" and name in ("await_for", "wait_in_thread"):
        assert place == "worker Loop", "on the worker's own loop, where it has what it made before"
    elif name == "await_for":
        assert place == "pronghorn-nested", "it does not hold up the loop"


def test_what_comes_meanwhile_is_run_afterwards(running: Running) -> None:
    running.call(1, "wait_for", "other")
    sent = running.nested()
    running.call(2, "add", 1, 2)
    running.call(3, "add", 3, 4)
    running.send(NestedDone(sent.id, Raw(encode(5))))
    assert [running.value() for _ in range(3)] == [(1, 5), (2, 3), (3, 7)]


def test_stop_waits_for_what_waits(running: Running) -> None:
    running.call(1, "wait_for", "other")
    sent = running.nested()
    running.send(Stop())
    running.send(NestedDone(sent.id, Raw(encode(5))))
    assert running.value() == (1, 5)


def test_large_values_travel_both_ways(running: Running) -> None:
    data = bytes(range(256)) * 4_000
    running.call(1, "wait_for", "other", [data])
    message, buffers = running.receive()
    assert isinstance(message, Nested)
    assert buffers == [data]
    running.send(NestedDone(message.id, Raw(encode(None)), 0))
    assert running.value() == (1, None)


def test_late_replies_are_nobody_s(running: Running) -> None:
    running.call(1, "await_for", "other")
    sent = running.nested()
    running.send(CancelRun(1))
    assert running.message() == CancelNested(sent.id)
    assert running.failure().code == "CANCELLED"
    for reply in (NestedDone(sent.id, Raw(b"\xc0")), RunHere(sent.id), RunHere(99)):
        running.send(reply)
    running.call(2, "add", 1, 2)
    assert running.value() == (2, 3)


def test_a_deadline_of_what_runs_here_is_told_as_one(running: Running) -> None:
    """It was told as cancelled, which it was not."""
    running.call(1, "await_for", "forever", 0.01)
    running.send(RunHere(running.nested().id))
    failed = running.failure()
    assert running.nodes.notes == ["begun", DeadlineExceededError]
    assert failed.details.exception == "pronghorn.broker.wire.errors.DeadlineExceededError"
    assert running.nodes.contexts[0].cancelled


def test_a_def_s_call_that_runs_here_ends_at_its_deadline_too(running: Running) -> None:
    running.call(1, "wait_for", "forever", left_ms=50.0)
    begun = monotonic()
    running.send(RunHere(running.nested().id))
    assert "deadline has passed" in running.failure().message
    assert monotonic() - begun < PATIENCE_S / 2


def test_a_cancelled_caller_sees_a_cancel_of_its_own(running: Running) -> None:
    """What it called ran in its task, took the cancel for its own, and the caller went on."""
    running.call(1, "await_for", "forever")
    running.send(RunHere(running.nested().id))
    running.call(2, "add", 1, 2)
    assert running.value() == (2, 3)
    running.send(CancelRun(1))
    assert running.failure().code == "CANCELLED"
    assert running.nodes.notes == ["begun", asyncio.CancelledError]
    assert running.nodes.contexts[0].cancelled
    assert not issubclass(asyncio.CancelledError, CancelledError)


def test_an_async_def_must_not_hold_up_the_loop(running: Running) -> None:
    running.call(1, "wait_in_async", "other")
    assert "await ctx.call" in running.failure().message


def test_the_depth_is_limited(running: Running) -> None:
    call = run_call(1, running.nodes.index["wait_for"], "other")
    running.send(type(call)(call.token, call.slot, call.node, 0, call.params, depth=DEPTH_MAX))
    assert "100 deep" in running.failure().message


def test_the_end_of_the_broker_ends_the_wait() -> None:
    with Running() as worker:
        worker.ready()
        worker.call(1, "wait_for", "other")
        worker.nested()
        worker.socket.close()
        worker.thread.join(PATIENCE_S)
        assert not worker.thread.is_alive()


def test_a_forked_child_can_t_call(running: Running) -> None:
    running.call(1, "wait_for", "other")
    running.send(NestedDone(running.nested().id, Raw(encode(1))))
    running.value()
    running.runtime._nested.leave_to_parent()
    with pytest.raises(RuntimeError, match="forked child"):
        running.nodes.contexts[0].call_sync("other")


def test_a_call_s_params_are_encoded_by_position_or_name(running: Running) -> None:
    running.call(1, "wait_for", "add", [3, 4])
    sent = running.nested()
    assert decode(sent.params) == [3, 4]
    running.send(RunHere(sent.id))
    word = running.message()
    assert isinstance(word, Done)
    assert decode(word.value) == 7
