"""Mirror of worker/generators.py: streaming nodes of each kind in a running worker."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvloop
from broker_ends import PATIENCE_S, BrokerEnd, run_call
from msgspec import Raw
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    CancelRun,
    Done,
    Emitted,
    Failed,
    MoreCredit,
    Progressed,
    RunStream,
    Stop,
    ToBroker,
    Yielded,
    unwrap_json,
    wrap_json,
)
from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.runtime import WorkerRuntime

RESULT_BYTES = 1000
KINDS = ("rows", "trows", "arows")


class Nodes:
    """Nodes that a test holds the strings of; those of each kind do the same."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.opened = threading.Event()
        self.closed = threading.Event()  # set when a generator's ``finally`` has run

        def made(count: int, bad: str) -> Iterator[Any]:
            for number in range(count):
                self.notes.append(f"made {number}")
                yield number
            if bad == "raise":
                raise ValueError("in the middle")
            if bad == "part":
                yield object()
            if bad == "size":
                yield "x" * RESULT_BYTES

        @node
        def rows(ctx: Context, count: int, bad: str = "") -> Iterator[Any]:
            try:
                yield from made(count, bad)
            finally:
                self.notes.append(f"closed, cancelled: {ctx.cancelled}")
                self.closed.set()
            return "the end"

        @node(thread=True)
        def trows(ctx: Context, count: int, bad: str = "") -> Iterator[Any]:
            return (yield from rows(ctx, count, bad))

        @node
        async def arows(ctx: Context, count: int, bad: str = "") -> AsyncIterator[Any]:
            try:
                for part in made(count, bad):
                    yield part
            finally:
                await asyncio.sleep(0)
                self.notes.append(f"closed, cancelled: {ctx.cancelled}")
                self.closed.set()

        @node
        async def stubborn() -> AsyncIterator[int]:
            """Pay no heed to being cancelled."""
            for number in range(10**9):
                try:
                    yield number
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    self.notes.append("ignored")

        @node
        def untidy() -> Iterator[int]:
            try:
                yield 1
            finally:
                self.closed.set()
                raise ValueError("in finally")

        @node
        def add(a: int, b: int) -> int:
            return a + b

        @node
        def emits(ctx: Context, count: int) -> int:
            for number in range(count):
                ctx.emit("found", number)
            return count

        @node(thread=True)
        def temits(ctx: Context, count: int) -> int:
            for number in range(count):
                ctx.emit("found", number)
            return count

        @node
        async def aemits(ctx: Context, count: int) -> int:
            for number in range(count):
                ctx.emit("found", number)
            return count

        @node
        def progresses(ctx: Context, count: int) -> Iterator[int]:
            for number in range(count):
                ctx.progress(number, count, "going")
            yield 1
            yield 2

        functions = (rows, trows, arows, stubborn, untidy, add, emits, temits, aemits, progresses)
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
            result_bytes=RESULT_BYTES,
            loop=self.loop,
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

    def stream(
        self,
        token: int,
        name: str,
        *params: Any,
        items: int = 100,
        bytes_: int = 10**6,
        **more: Any,
    ) -> None:
        raw = Raw(encode(params))
        index = self.nodes.index[name]
        self.send(
            RunStream(
                *(token, token, index, CODEC_MSGPACK, raw),
                takes_parts=True,
                items=items,
                bytes=bytes_,
                **more,
            )
        )

    def until_the_end(self) -> list[Any]:
        """Give parts up to the last word, and what that says."""
        told: list[Any] = []
        while True:
            message = self.message()
            if isinstance(message, Yielded):
                told.append(decode(message.value))
            else:
                told.append(decode(message.value) if isinstance(message, Done) else message)
                return told

    def is_silent(self) -> bool:
        """Tell whether the worker says nothing more, once it has done what it was told."""
        self.send(run_call(60, self.nodes.index["add"], 1, 2))
        return self.value() == (60, 3)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as end:
        end.ready()
        yield end
        end.nodes.opened.set()
        end.send(Stop())
        end.wait_for_end()
        end.thread.join(PATIENCE_S)
        assert not end.thread.is_alive()


def failure(message: ToBroker | Any) -> Failed:
    assert isinstance(message, Failed), message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_parts_then_what_it_returned(running: Running, kind: str) -> None:
    running.stream(1, kind, 3)
    assert running.until_the_end() == [0, 1, 2, None if kind == "arows" else "the end"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_credit_it_is_suspended(running: Running, kind: str) -> None:
    running.stream(1, kind, 5, items=2)
    assert [decode(running.message().value) for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
    assert running.is_silent()
    assert "made 2" not in running.nodes.notes
    running.send(MoreCredit(1, 1, 0, 0))
    assert decode(running.message().value) == 2  # type: ignore[union-attr]
    running.send(MoreCredit(1, 100, 0, 0))
    assert running.until_the_end()[:2] == [3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_credit_too_and_the_last_part_may_go_beyond(running: Running, kind: str) -> None:
    running.stream(1, kind, 5, bytes_=2)
    for number in range(2):
        assert decode(running.message().value) == number  # type: ignore[union-attr]
    assert running.is_silent()
    running.send(MoreCredit(1, 0, 1000, 0))
    assert running.until_the_end()[:3] == [2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ("raise", "in the middle"),
        ("part", "yielded a `object` that can't be encoded"),
        ("size", "part 2 has 1003 bytes, the limit is 1000"),
    ],
)
def test_what_fails_in_the_middle_fails_behind_its_parts(
    running: Running, kind: str, bad: str, text: str
) -> None:
    running.stream(1, kind, 2, bad)
    *parts, last = running.until_the_end()
    assert parts == [0, 1]
    assert text in failure(last).message
    assert failure(last).code == "NODE_ERROR"
    assert running.nodes.closed.wait(PATIENCE_S)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_params_are_refused_before_it_begins(running: Running, kind: str) -> None:
    running.stream(1, kind, "three", events=5)
    assert failure(running.message()).code == "INVALID_ARGUMENT"
    assert running.nodes.notes == []
    assert not running.runtime._channels.by_token


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [2, 10**9])
def test_a_cancel_closes_it(running: Running, kind: str, items: int) -> None:
    """One that waits for credit, and one that never ends."""
    running.stream(1, kind, 10**9, items=items, bytes_=10**9)
    assert decode(running.message().value) == 0  # type: ignore[union-attr]
    running.send(CancelRun(1))
    last = failure(running.until_the_end()[-1])
    assert (last.code, last.details.outcome) == ("CANCELLED", "maybe_executed")
    assert running.nodes.notes[-1] == "closed, cancelled: True"


def test_an_async_generator_that_ignores_a_cancel_is_closed_at_its_next_part(
    running: Running,
) -> None:
    running.stream(1, "stubborn")
    assert decode(running.message().value) == 0  # type: ignore[union-attr]
    running.send(CancelRun(1))
    assert failure(running.until_the_end()[-1]).code == "CANCELLED"


def test_what_a_finally_raises_harms_nobody(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.stream(1, "untidy", items=1)
    running.message()
    running.send(CancelRun(1))
    assert failure(running.message()).code == "CANCELLED"
    assert "nodes.untidy: closing its generator failed" in caplog.text
    assert running.is_silent()


def test_others_get_their_turn_beside_a_generator_that_never_ends(running: Running) -> None:
    running.stream(1, "rows", 10**9, items=10**9, bytes_=10**9)
    running.message()
    running.send(run_call(2, running.nodes.index["add"], 1, 2))
    while isinstance(message := running.message(), Yielded):
        pass
    assert isinstance(message, Done)
    running.send(CancelRun(1))
    running.until_the_end()


def test_the_slot_tells_when_it_runs(running: Running) -> None:
    running.stream(1, "rows", 5, items=1)
    running.message()
    assert running.is_silent()
    assert running.page.mark(1) == 0
    running.send(CancelRun(1))
    running.until_the_end()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_collected_for_who_takes_none(running: Running, kind: str) -> None:
    running.send(run_call(1, running.nodes.index[kind], 3))
    assert running.value() == (1, [0, 1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_collected_in_json(running: Running, kind: str) -> None:
    index = running.nodes.index[kind]
    call = run_call(1, index)
    params = wrap_json(b'{"count": 3}')
    running.send(type(call)(1, 1, index, CODEC_JSON, params))
    message = running.message()
    assert isinstance(message, Done)
    assert unwrap_json(message.value) == b"[0,1,2]"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_collected_is_bounded(running: Running, kind: str) -> None:
    running.send(run_call(1, running.nodes.index[kind], 10**9))
    last = failure(running.message())
    assert "its parts have too many bytes to collect, the limit is 1000" in last.message
    assert last.details.limit == 1000


@pytest.mark.parametrize("name", ["emits", "temits", "aemits"])
def test_events_come_before_the_result(running: Running, name: str) -> None:
    running.stream(1, name, 3, events=5)
    for number in range(3):
        assert running.message() == Emitted(1, "found", Raw(encode(number)))
    assert running.value() == (1, 3)
    assert not running.runtime._channels.by_token


@pytest.mark.parametrize("name", ["emits", "temits"])
def test_a_def_waits_until_its_caller_takes_more_events(running: Running, name: str) -> None:
    running.stream(1, name, 7, events=2)
    for number in range(2):
        assert running.message() == Emitted(1, "found", Raw(encode(number)))
    running.send(MoreCredit(1, 0, 0, 100))
    for number in range(2, 7):
        assert running.message() == Emitted(1, "found", Raw(encode(number)))
    assert running.value() == (1, 7)


@pytest.mark.parametrize("name", ["emits", "temits", "aemits"])
def test_events_that_nobody_takes_are_refused(
    running: Running, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pronghorn.worker.events.EMIT_WAIT_S", 0.05)
    running.stream(1, name, 3, events=2)
    for _ in range(2):
        assert isinstance(running.message(), Emitted)
    last = failure(running.message())
    assert "event 'found' was not sent: the caller takes no more for now" in last.message


@pytest.mark.parametrize("name", ["emits", "temits"])
def test_who_waits_to_send_an_event_hears_that_its_call_was_given_up(
    running: Running, name: str
) -> None:
    running.stream(1, name, 3, events=2)
    for _ in range(2):
        assert isinstance(running.message(), Emitted)
    running.page.revoke(1, 1)
    running.send(CancelRun(1))
    assert "the call was given up" in failure(running.message()).message


@pytest.mark.parametrize("name", ["emits", "temits", "aemits", "progresses"])
def test_for_who_takes_no_events_there_are_none(running: Running, name: str) -> None:
    running.send(run_call(1, running.nodes.index[name], 10_000))
    assert isinstance(running.message(), Done)


def test_of_progress_that_has_to_wait_the_newest_is_kept(running: Running) -> None:
    running.stream(1, "progresses", 100, events=4)
    told = [running.message() for _ in range(2)]
    assert told == [Progressed(1, float(done), 100.0, "going") for done in (0, 1)]
    assert isinstance(running.message(), Yielded), "the other half of the credit is for events"


def test_credit_of_what_waits_in_the_worker_waits_with_it(running: Running) -> None:
    """A node that pumps the link takes credit in; that of a stream not begun was lost."""
    running.stream(1, "emits", 2, events=1)
    assert isinstance(running.message(), Emitted)
    running.stream(2, "rows", 4, items=1)
    running.send(MoreCredit(2, 9, 1, 0))
    running.send(MoreCredit(1, 0, 0, 1))
    assert isinstance(running.message(), Emitted)
    assert running.value() == (1, 2)
    assert running.until_the_end() == [0, 1, 2, 3, "the end"]
