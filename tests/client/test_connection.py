"""A connection that blocks: handshakes, losses, interrupts, closing; with a scripted broker."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from scripted_broker import (
    PROBE,
    ScriptedBroker,
    Transport,
    scripted_broker,
    wait_until_greeted,
    wait_until_lost,
)

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    ProtocolError,
)
from pronghorn.broker.wire.limits import KIB, MIB, Limits
from pronghorn.broker.wire.messages import (
    Call,
    Cancel,
    Error,
    Goodbye,
    MapChunk,
    MapResult,
    Ping,
    Result,
)
from pronghorn.client.connection import LATE_S, Connection
from pronghorn.client.sockets import RETRY_S, Sockets

NO_PARAMS = (b"\xc0", ())
NIL = msgspec.Raw(b"\xc0")
SOON_S = 0.1  # within which a lost connection is heard of

Connect = Callable[..., Connection]


class Bench:
    """What connections need around them; counts those that were closed."""

    def __init__(self) -> None:
        self.bell, self.rope = socket.socketpair()
        self.sockets: list[Sockets] = []
        self.made: list[Connection] = []
        self.closed: list[Connection] = []

    def connection(self, endpoint: str, connect_timeout_s: float = 5.0) -> Connection:
        self.sockets.append(Sockets(endpoint))
        connection = Connection(
            self.sockets[-1],
            client="test",
            connect_timeout_s=connect_timeout_s,
            bell=self.bell.fileno(),
            closed=lambda: self.closed.append(connection),
        )
        self.made.append(connection)
        return connection

    def close(self) -> None:
        for connection in self.made:
            connection.close()
        assert self.closed == self.made
        for sockets in self.sockets:
            sockets.close()
        self.bell.close()
        self.rope.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def connection(broker: ScriptedBroker, bench: Bench) -> Connection:
    """A connection that has been welcomed."""
    greeting = broker.play(ScriptedBroker.greet)
    connection = bench.connection(broker.endpoint)
    connection.connect()
    greeting.result()
    return connection


def value_of(reply: object) -> Any:
    assert isinstance(reply, Result)
    return msgspec.msgpack.decode(reply.value)


def test_a_call_and_its_result(broker: ScriptedBroker, connection: Connection) -> None:
    answered = broker.play(lambda broker: broker.answer(7))
    waiter = connection.call("add", (b"\x92\x03\x04", ()), None)
    assert answered.result() == Call(waiter.request_id, "add", msgspec.Raw(b"\x92\x03\x04"))
    assert value_of(waiter.reply) == 7


def test_buffers_of_calls_and_results(broker: ScriptedBroker, connection: Connection) -> None:
    def echo(broker: ScriptedBroker) -> list[bytes]:
        call, *buffers = broker.take()
        broker.send(Result(call.id, NIL, len(buffers)), *buffers)
        return list(buffers)

    taken = broker.play(echo)
    sent = [b"x" * 70_000, bytearray(b"y" * (600 * KIB)), memoryview(b"z" * (600 * KIB))]
    waiter = connection.call("echo", (b"\xc0", sent), None)
    assert taken.result() == sent
    assert waiter.buffers == sent


def test_a_broker_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, bench: Bench, transport: Transport
) -> None:
    late = ScriptedBroker(tmp_path, transport)

    def start(broker: ScriptedBroker) -> None:
        broker.start()
        broker.greet()
        broker.answer(1)

    connection = bench.connection(late.endpoint)
    started = late.play(start)
    assert value_of(connection.call("add", NO_PARAMS, None).reply) == 1
    started.result()
    late.close()


@pytest.mark.parametrize("listening", [False, True], ids=["not there", "mute"])
def test_a_broker_that_does_not_answer_is_given_up(
    tmp_path: Path, bench: Bench, listening: bool, transport: Transport
) -> None:
    with ExitStack() as stack:
        if listening:
            stack.enter_context(scripted_broker(tmp_path, transport))
        endpoint = f"ipc://{tmp_path}/scripted.sock"
        connection = bench.connection(endpoint, connect_timeout_s=0.15)
        begun = monotonic()
        with pytest.raises(BrokerLostError) as caught:
            connection.call("add", NO_PARAMS, None)
        assert 0.14 <= monotonic() - begun < 0.15 + SOON_S  # libzmq counts whole ms
        assert caught.value.outcome == "not_started"
        assert caught.value.retryable
        assert caught.value.message == (
            f"no broker answers at {endpoint} within 0.15 s: is `pronghorn serve` running?"
        )


def test_a_broker_that_dies_in_the_handshake_is_waited_for(
    broker: ScriptedBroker, bench: Bench
) -> None:
    def die_twice(broker: ScriptedBroker) -> None:
        assert broker.take() == PROBE
        broker.stop()
        broker.start()
        assert broker.take() == PROBE
        broker.send(broker.welcome(None))
        broker.take()  # the hello
        broker.stop()
        broker.start()
        broker.greet()
        broker.answer(1)

    died = broker.play(die_twice)
    assert value_of(bench.connection(broker.endpoint).call("add", NO_PARAMS, None).reply) == 1
    died.result()


def test_a_lost_broker_ends_a_call_at_once(broker: ScriptedBroker, connection: Connection) -> None:
    def die(broker: ScriptedBroker) -> float:
        broker.take()
        begun = monotonic()
        broker.stop()
        return begun

    died = broker.play(die)
    reply = connection.call("add", NO_PARAMS, None).reply
    assert monotonic() - died.result() < SOON_S
    assert isinstance(reply, Error)
    assert (reply.code, reply.details.outcome) == ("BROKER_LOST", "maybe_executed")


def test_a_result_sent_before_the_end_is_delivered(
    broker: ScriptedBroker, connection: Connection, transport: Transport
) -> None:
    def answer_and_die(broker: ScriptedBroker) -> None:
        broker.answer(5)
        broker.stop()

    died = broker.play(answer_and_die)
    reply = connection.call("add", NO_PARAMS, None).reply
    died.result()
    if transport == "stream":
        assert value_of(reply) == 5
        return
    # RawSockets lingers for nothing, so whether the result leaves is chance; never is it an error
    # of another kind, and never a hang.
    assert isinstance(reply, Result) or (isinstance(reply, Error) and reply.code == "BROKER_LOST")


def test_a_broker_lost_while_a_large_call_is_written(
    broker: ScriptedBroker, connection: Connection
) -> None:
    def die(broker: ScriptedBroker) -> float:
        broker.wait_for_news()
        begun = monotonic()
        broker.stop()
        return begun

    died = broker.play(die)
    reply = connection.call("size", (b"\xc0", [b"x" * (8 * MIB)]), None).reply
    assert monotonic() - died.result() < SOON_S
    assert isinstance(reply, Error)
    assert (reply.code, reply.details.outcome) == ("BROKER_LOST", "maybe_executed")


@pytest.mark.parametrize("transport", ["stream"], indirect=True)
def test_what_may_hold_whole_requests_is_not_sent_twice(
    broker: ScriptedBroker, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = broker.play(lambda broker: broker.answer(1))
    connection.call("add", NO_PARAMS, None)
    answered.result()
    broker.stop()
    monkeypatch.setattr("pronghorn.client.connection.FRESH_S", inf)
    reply = connection.call("size", (b"\xc0", [b"x" * MIB]), None).reply
    assert isinstance(reply, Error)
    assert (reply.code, reply.details.outcome) == ("BROKER_LOST", "maybe_executed")


@pytest.mark.parametrize("size", [1, MIB])
@pytest.mark.parametrize("fresh", [False, True], ids=["looked for", "noticed when sending"])
def test_a_broker_restarted_between_calls_makes_no_error(
    broker: ScriptedBroker,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    fresh: bool,
    size: int,
) -> None:
    answered = broker.play(lambda broker: broker.answer(1))
    connection.call("add", NO_PARAMS, None)
    answered.result()
    broker.stop()
    wait_until_lost(connection._socket)
    monkeypatch.setattr("pronghorn.client.connection.FRESH_S", inf if fresh else 0.0)

    def begin_anew(broker: ScriptedBroker) -> None:
        broker.start()
        broker.greet()
        broker.answer(2)

    began = broker.play(begin_anew)
    params = (msgspec.msgpack.encode([bytes(size)]), ())
    assert value_of(connection.call("size", params, None).reply) == 2
    began.result()


@pytest.mark.parametrize("transport", ["zmq"], indirect=True)
def test_a_broker_restarted_and_found_again_meanwhile_makes_no_error(
    broker: ScriptedBroker, connection: Connection
) -> None:
    broker.stop()
    wait_until_lost(connection._socket)

    def begin_anew(broker: ScriptedBroker) -> None:
        broker.start()
        broker.greet()
        broker.answer(3)

    began = broker.play(begin_anew)
    wait_until_greeted(connection._socket)
    assert value_of(connection.call("add", NO_PARAMS, None).reply) == 3
    began.result()


@pytest.mark.parametrize("transport", ["stream"], indirect=True)
def test_a_broker_that_hangs_up_on_all_is_tried_in_moderation(
    broker: ScriptedBroker, bench: Bench
) -> None:
    given_up = threading.Event()

    def hang_up(broker: ScriptedBroker) -> int:
        times = 0
        while not given_up.is_set():
            times += broker.hang_up()
        return times

    times = broker.play(hang_up)
    with pytest.raises(BrokerLostError, match="no broker answers"):
        bench.connection(broker.endpoint, connect_timeout_s=0.2).connect()
    given_up.set()
    assert 2 <= times.result() <= 0.2 / RETRY_S


def test_what_is_no_broker_is_told_and_left(broker: ScriptedBroker, bench: Bench) -> None:
    def chat(broker: ScriptedBroker) -> None:
        broker.take()
        broker.send(b"who is there?")

    connection = bench.connection(broker.endpoint)
    chatted = broker.play(chat)
    with pytest.raises(ProtocolError, match="not a request"):
        connection.connect()
    chatted.result()
    assert connection.closing
    assert bench.closed == [connection]


def test_a_call_over_the_limits_is_refused_and_harms_nothing(
    tmp_path: Path, bench: Bench, transport: Transport
) -> None:
    with scripted_broker(tmp_path, transport, Limits(request_bytes=4 * KIB)) as broker:
        played = broker.play(lambda broker: (broker.greet(), broker.answer(1)))
        connection = bench.connection(broker.endpoint)
        with pytest.raises(InvalidArgumentError, match="limit is 4096") as caught:
            connection.call("size", (b"\xc0" * 5000, ()), None)
        assert caught.value.details.limit == 4096
        assert value_of(connection.call("size", NO_PARAMS, None).reply) == 1
        played.result()


def test_a_call_that_nobody_answers_is_cancelled_some_time_after_its_deadline(
    broker: ScriptedBroker, connection: Connection
) -> None:
    begun = monotonic()
    with pytest.raises(DeadlineExceededError, match="no word from the broker") as caught:
        connection.call("add", NO_PARAMS, 50.0)
    assert 0.04 + LATE_S <= monotonic() - begun < 0.05 + LATE_S + SOON_S
    assert caught.value.outcome == "maybe_executed"
    call = broker.take()
    assert broker.take() == Cancel(call.id)
    broker.send(Result(call.id, NIL))  # too late, and no matter
    answered = broker.play(lambda broker: broker.answer(8))
    assert value_of(connection.call("add", NO_PARAMS, None).reply) == 8
    answered.result()


def test_a_ping_that_is_not_answered(broker: ScriptedBroker, connection: Connection) -> None:
    with pytest.raises(DeadlineExceededError, match=r"did not answer a ping within 0\.05 s"):
        connection.ping(0.05)
    assert isinstance(broker.take(), Ping)


def test_chunks_are_sent_at_once_and_waited_for_together(
    broker: ScriptedBroker, connection: Connection
) -> None:
    first = connection.open_chunk("add", b"\x91\xc0", None)
    second = connection.open_chunk("add", b"\x92\xc0\xc0", 500.0)
    chunks = [broker.take(), broker.take()]
    assert all(isinstance(chunk, MapChunk) for chunk in chunks)
    assert [chunk.id for chunk in chunks] == [first.request_id, second.request_id]
    broker.send(MapResult(second.request_id, NIL))
    connection.wait_for_any([first, second])
    assert first.reply is None
    assert isinstance(second.reply, MapResult)
    connection.cancel([first])
    assert broker.take() == Cancel(first.request_id)


def test_chunks_over_the_limits_have_their_reply_at_once(
    tmp_path: Path, bench: Bench, transport: Transport
) -> None:
    with scripted_broker(tmp_path, transport, Limits(request_bytes=4 * KIB)) as broker:
        played = broker.play(ScriptedBroker.greet)
        connection = bench.connection(broker.endpoint)
        connection.connect()
        waiter = connection.open_chunk("size", b"\xc0" * 5000, None)
        assert isinstance(waiter.reply, Error)
        assert waiter.reply.code == "INVALID_ARGUMENT"
        connection.wait_for_any([waiter])
        played.result()


def test_a_chunk_whose_time_is_over_before_it_could_be_sent(
    tmp_path: Path, bench: Bench, transport: Transport
) -> None:
    with scripted_broker(tmp_path, transport, Limits(grant_requests=4)) as broker:
        played = broker.play(ScriptedBroker.greet)
        connection = bench.connection(broker.endpoint)
        connection.connect()
        played.result()
        begun = monotonic()
        sent = [connection.open_chunk("nap", b"\x91\xc0", None) for _ in range(4)]
        last = connection.open_chunk("nap", b"\x91\xc0", 50.0)
        connection.wait_for_any([*sent, last])
        assert 0.04 <= monotonic() - begun < 0.05 + SOON_S
        assert not any(waiter.reply for waiter in sent)
        assert isinstance(last.reply, Error)
        assert last.reply.code == "DEADLINE_EXCEEDED"
        assert last.reply.details.outcome == "not_started"
        assert all(isinstance(broker.take(), MapChunk) for _ in sent)


def test_a_lost_broker_ends_all_chunks(broker: ScriptedBroker, connection: Connection) -> None:
    waiters = [connection.open_chunk("add", b"\x91\xc0", None) for _ in range(3)]
    broker.stop()
    connection.wait_for_any(waiters)
    codes = [one.reply.code for one in waiters if isinstance(one.reply, Error)]
    assert codes == ["BROKER_LOST"] * 3


def interrupt_soon(script: Callable[[ScriptedBroker], Any]) -> Callable[[ScriptedBroker], Any]:
    """Send the main thread a Ctrl-C once the broker has taken what it waits for."""

    def play(broker: ScriptedBroker) -> Any:
        taken = script(broker)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        return taken

    return play


@pytest.mark.parametrize("wait_s", [0.0, 0.05], ids=["in the receive", "in the poll"])
def test_an_interrupt_gives_up_call_and_connection(
    broker: ScriptedBroker, connection: Connection, bench: Bench, wait_s: float
) -> None:
    def take_and_wait(broker: ScriptedBroker) -> Any:
        call = broker.take()
        threading.Event().wait(wait_s)
        return call

    taken = broker.play(interrupt_soon(take_and_wait))
    with pytest.raises(KeyboardInterrupt):
        connection.call("add", NO_PARAMS, None)
    assert isinstance(taken.result(), Call)
    assert broker.is_left()  # which cancels what is open
    assert bench.closed == [connection]
    with pytest.raises(BrokerLostError, match="closed"):
        connection.call("add", NO_PARAMS, None)
    with pytest.raises(BrokerLostError, match="closed"):
        connection.connect()


def test_a_signal_handler_may_make_calls_on_the_same_connection(
    broker: ScriptedBroker, connection: Connection
) -> None:
    inner: list[Any] = []

    def handle(*_: object) -> None:
        inner.append(value_of(connection.call("inner", NO_PARAMS, None).reply))

    def script(broker: ScriptedBroker) -> None:
        outer = broker.take()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]
        nested = broker.take()
        broker.send(Result(outer.id, msgspec.Raw(b"\x01")))  # the outer first: it is kept
        broker.send(Result(nested.id, msgspec.Raw(b"\x02")))

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        played = broker.play(script)
        assert value_of(connection.call("outer", NO_PARAMS, None).reply) == 1
        assert inner == [2]
        played.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_signal_handler_may_close_a_connection_that_waits(
    broker: ScriptedBroker, connection: Connection, bench: Bench
) -> None:
    still_open: list[bool] = []

    def handle(*_: object) -> None:
        connection.close()
        still_open.append(not bench.closed)
        bench.rope.close()

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        taken = broker.play(
            lambda broker: (
                broker.take(),
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1),  # type: ignore[arg-type]
            )
        )
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            connection.call("add", NO_PARAMS, None)
        taken.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert caught.value.outcome == "maybe_executed"
    assert still_open == [True]
    assert bench.closed == [connection]


def test_closing_in_another_thread_ends_a_call(
    broker: ScriptedBroker, connection: Connection, bench: Bench
) -> None:
    def close(broker: ScriptedBroker) -> None:
        broker.take()
        connection.close()
        bench.rope.close()

    closed = broker.play(close)
    begun = monotonic()
    with pytest.raises(BrokerLostError, match="the client was closed"):
        connection.call("add", NO_PARAMS, None)
    assert monotonic() - begun < SOON_S
    closed.result()
    assert isinstance(broker.take(), Goodbye)


@pytest.mark.parametrize("lost", [False, True], ids=["goodbye is said", "nobody is there"])
@pytest.mark.parametrize(
    ("sent", "outcome"), [(True, "maybe_executed"), (False, "not_started")], ids=["sent", "not"]
)
def test_closing_tells_whether_something_may_have_been_executed(
    broker: ScriptedBroker, connection: Connection, sent: bool, outcome: str, lost: bool
) -> None:
    waiters = [connection.open_chunk("add", b"\x91\xc0", None)] if sent else []
    if sent:
        assert isinstance(broker.take(), MapChunk)
    if lost:
        broker.stop()
        wait_until_lost(connection._socket)
    connection.close()
    with pytest.raises(BrokerLostError, match="the client was closed") as caught:
        connection.wait_for_any(waiters)
    assert caught.value.outcome == outcome
    with pytest.raises(BrokerLostError, match="the client was closed") as caught:
        connection.open_chunk("add", b"\x91\xc0", None)
    assert caught.value.outcome == outcome


def test_closing_while_its_user_is_busy_tells_it_too(
    broker: ScriptedBroker, connection: Connection
) -> None:
    connection.open_chunk("add", b"\x91\xc0", None)
    broker.stop()
    with connection, ThreadPoolExecutor(1) as thread:
        thread.submit(connection.close).result()
        with pytest.raises(BrokerLostError, match="the client was closed") as caught, connection:
            pass
        assert caught.value.outcome == "maybe_executed"


def test_closing_one_that_waits_for_a_broker(tmp_path: Path, bench: Bench) -> None:
    connection = bench.connection(f"ipc://{tmp_path}/none.sock")
    waits = threading.Event()

    def close() -> None:
        waits.wait()
        connection.close()
        bench.rope.shutdown(socket.SHUT_RDWR)

    with ThreadPoolExecutor(1) as thread:
        closed = thread.submit(close)
        waits.set()
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            connection.call("add", NO_PARAMS, None)
        closed.result()
    assert caught.value.outcome == "not_started"


def test_closing_twice_says_goodbye_once(
    broker: ScriptedBroker, connection: Connection, bench: Bench
) -> None:
    connection.close()
    connection.close()
    assert bench.closed == [connection]
    assert isinstance(broker.take(), Goodbye)


def test_what_nobody_holds_any_more_is_closed(broker: ScriptedBroker, bench: Bench) -> None:
    greeting = broker.play(ScriptedBroker.greet)
    closed: list[bool] = []
    sockets = Sockets(broker.endpoint)
    connection = Connection(
        sockets,
        client="test",
        connect_timeout_s=5.0,
        bell=bench.bell.fileno(),
        closed=lambda: closed.append(True),
    )
    connection.connect()
    greeting.result()
    del connection
    assert closed == [True]
    assert isinstance(broker.take(), Goodbye)
    sockets.close()


def test_a_forked_child_leaves_its_parent_s_connection_alone(
    broker: ScriptedBroker, connection: Connection, bench: Bench
) -> None:
    waiter = connection.open_chunk("add", b"\x91\xc0", None)
    pid = os.fork()
    if pid == 0:
        try:
            connection.cancel([waiter])
            connection.close()
        finally:
            os._exit(len(bench.closed))
    assert os.waitpid(pid, 0)[1] == 0
    assert isinstance(broker.take(), MapChunk)
    answered = broker.play(lambda broker: broker.answer(4))
    assert value_of(connection.call("add", NO_PARAMS, None).reply) == 4
    answered.result()
