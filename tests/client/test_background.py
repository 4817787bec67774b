"""The I/O thread: real futures, whatever becomes of broker, thread and client."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from scripted_broker import ScriptedBroker, Transport, scripted_broker
from trees import PATIENCE_S

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
)
from pronghorn.broker.wire.errors import CancelledError as NodeCancelledError
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.messages import Call, Cancel, Error, Goodbye, Result
from pronghorn.client import Pool
from pronghorn.client.background import Background
from pronghorn.client.connection import LATE_S
from pronghorn.client.invocation import encode_arguments, target_of

SOON_S = 0.1


class Client:
    """What submits to a thread."""

    def __init__(self, endpoint: str, connect_timeout_s: float = 5.0) -> None:
        self.background = Background(endpoint, connect_timeout_s=connect_timeout_s)

    def submit(self, node: str, *arguments: Any, timeout_ms: float | None = None) -> Future[Any]:
        target = target_of(node)
        encoded = encode_arguments(target, arguments, {}, None)
        return self.background.submit(target, encoded, timeout_ms)


@contextmanager
def client_of(endpoint: str, connect_timeout_s: float = 5.0) -> Iterator[Client]:
    client = Client(endpoint, connect_timeout_s)
    try:
        yield client
    finally:
        client.background.close()


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with client_of(pool.endpoint) as client:
        yield client


@pytest.fixture
def scripted(broker: ScriptedBroker) -> Iterator[Client]:
    """A client of a scripted broker."""
    with client_of(broker.endpoint) as client:
        yield client


def greeted(script: Callable[[ScriptedBroker], Any]) -> Callable[[ScriptedBroker], Any]:
    def play(broker: ScriptedBroker) -> Any:
        broker.greet()
        return script(broker)

    return play


def test_futures_are_real_ones(client: Client) -> None:
    submitted = [client.submit("add", index, 1) for index in range(1000)]
    done, pending = futures.wait(submitted, PATIENCE_S)
    assert len(done) == 1000
    assert not pending
    assert [future.result() for future in submitted] == list(range(1, 1001))
    again = {client.submit("add", index, 1): index for index in range(10)}
    for future in futures.as_completed(again, PATIENCE_S):
        assert future.result() == again[future] + 1


def test_callbacks_run_on_the_thread(client: Client) -> None:
    names: list[str] = []
    called = threading.Event()

    def callback(future: Future[Any]) -> None:
        names.append(threading.current_thread().name)
        called.set()

    client.submit("doze", 0.02).add_done_callback(callback)
    assert called.wait(PATIENCE_S)
    assert names == ["pronghorn-client"]


def test_a_callback_may_submit_more(client: Client) -> None:
    second: list[Future[Any]] = []
    called = threading.Event()

    def callback(future: Future[Any]) -> None:
        second.append(client.submit("add", future.result(), 10))
        called.set()

    client.submit("add", 1, 2).add_done_callback(callback)
    assert called.wait(PATIENCE_S)
    assert second[0].result(PATIENCE_S) == 13


def test_errors_are_exceptions_of_the_future(client: Client) -> None:
    error = client.submit("no_such").exception(PATIENCE_S)
    assert isinstance(error, NotFoundError)


def test_a_request_over_the_limits_harms_no_other(tmp_path: Path, transport: Transport) -> None:
    with scripted_broker(tmp_path, transport, Limits(request_bytes=4 * KIB)) as broker:
        played = broker.play(greeted(lambda broker: (broker.answer(1), broker.answer(2))))
        with client_of(broker.endpoint) as client:
            assert client.submit("size", b"x").result(PATIENCE_S) == 1
            error = client.submit("size", b"x" * 5000).exception(PATIENCE_S)
            assert isinstance(error, InvalidArgumentError)
            assert client.submit("size", b"xy").result(PATIENCE_S) == 2
        played.result()


def test_cancelling_sends_cancel_and_wakes_who_waits(
    broker: ScriptedBroker, scripted: Client
) -> None:
    taken = broker.play(greeted(ScriptedBroker.take))
    future = scripted.submit("add", 1, 2)
    call = taken.result()
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    assert futures.wait([future], PATIENCE_S).done == {future}
    assert broker.take() == Cancel(call.id)
    with pytest.raises(futures.CancelledError):
        future.result()
    broker.send(Error(call.id, "CANCELLED", "cancelled", NodeCancelledError("x").details))
    answered = broker.play(ScriptedBroker.answer)
    assert scripted.submit("add", 3, 4).result(PATIENCE_S) is None
    answered.result()


def test_what_is_cancelled_before_it_is_sent_is_not_sent(
    broker: ScriptedBroker, scripted: Client
) -> None:
    cancelled = scripted.submit("add", 1, 2)
    assert cancelled.cancel()
    assert futures.wait([cancelled], PATIENCE_S).done == {cancelled}
    other = scripted.submit("other")
    answered = broker.play(greeted(ScriptedBroker.answer))
    other.result(PATIENCE_S)
    assert answered.result().node == "other"


def test_what_has_ended_can_not_be_cancelled(client: Client) -> None:
    future = client.submit("add", 1, 2)
    future.result(PATIENCE_S)
    assert not future.cancel()


@pytest.mark.slow
def test_a_call_that_nobody_answers_is_given_up(broker: ScriptedBroker, scripted: Client) -> None:
    taken = broker.play(greeted(ScriptedBroker.take))
    begun = monotonic()
    future = scripted.submit("add", 1, 2, timeout_ms=20.0)
    error = future.exception(PATIENCE_S)
    assert monotonic() - begun < 0.02 + LATE_S + SOON_S
    assert isinstance(error, DeadlineExceededError)
    assert error.outcome == "maybe_executed"
    call = taken.result()
    assert broker.take() == Cancel(call.id)
    broker.send(Result(call.id, call.params))  # too late, and no matter
    answered = broker.play(ScriptedBroker.answer)
    scripted.submit("add", 1, 2, timeout_ms=5000.0).result(PATIENCE_S)
    answered.result()


def test_a_lost_broker_ends_futures_and_the_next_one_is_found(
    broker: ScriptedBroker, scripted: Client
) -> None:
    def die(broker: ScriptedBroker) -> float:
        broker.take()
        begun = monotonic()
        broker.stop()
        return begun

    died = broker.play(greeted(die))
    error = scripted.submit("add", 1, 2).exception(PATIENCE_S)
    assert monotonic() - died.result() < SOON_S
    assert isinstance(error, BrokerLostError)
    assert error.outcome == "maybe_executed"
    later = scripted.submit("add", 1, 2)
    began = broker.play(lambda broker: (broker.start(), broker.greet(), broker.answer(3)))
    assert later.result(PATIENCE_S) == 3
    began.result()


def test_no_broker(tmp_path: Path) -> None:
    with client_of(f"ipc://{tmp_path}/none.sock", connect_timeout_s=0.05) as client:
        for _ in range(2):
            submitted = [client.submit("add", 1, 2) for _ in range(3)]
            for future in submitted:
                error = future.exception(PATIENCE_S)
                assert isinstance(error, BrokerLostError)
                assert error.outcome == "not_started"
                assert "within 0.05 s: is `pronghorn serve` running?" in error.message


def test_what_is_no_endpoint_ends_the_thread_and_all_futures() -> None:
    with client_of("tcp://127.0.0.1") as client:  # only libzmq sees that there is no port
        for _ in range(2):
            error = client.submit("add", 1, 2).exception(PATIENCE_S)
            assert isinstance(error, InvalidArgumentError)
        client.background._thread.join(PATIENCE_S)
        assert client.background.has_ended
        error = client.submit("add", 1, 2).exception(PATIENCE_S)
        assert isinstance(error, InvalidArgumentError)
        assert not client.submit("add", 1, 2).cancel()


def test_a_broker_that_breaks_the_protocol_is_connected_anew(
    broker: ScriptedBroker, scripted: Client
) -> None:
    def break_it(broker: ScriptedBroker) -> None:
        broker.take()
        broker.send(b"nonsense")
        assert isinstance(broker.take(), Goodbye)
        broker.greet()
        broker.answer(4)

    broken = broker.play(greeted(break_it))
    error = scripted.submit("add", 1, 2).exception(PATIENCE_S)
    assert isinstance(error, BrokerLostError)
    assert scripted.submit("add", 1, 2).result(PATIENCE_S) == 4
    broken.result()


def test_what_is_no_broker_is_told(broker: ScriptedBroker) -> None:
    chatted = broker.play(lambda broker: (broker.take(), broker.send(b"who is there?")))
    with client_of(broker.endpoint, connect_timeout_s=0.2) as client:
        error = client.submit("add", 1, 2).exception(PATIENCE_S)
        assert isinstance(error, BrokerLostError)
        # The first if the answer was faster than the call.
        assert "no broker answers" in error.message or "not a request" in error.message
        chatted.result()
        error = client.submit("add", 1, 2).exception(PATIENCE_S)
        assert isinstance(error, BrokerLostError)
        assert "no broker answers" in error.message


def test_closing_ends_open_futures(broker: ScriptedBroker, scripted: Client) -> None:
    taken = broker.play(greeted(ScriptedBroker.take))
    sent = scripted.submit("add", 1, 2)
    assert isinstance(taken.result(), Call)
    scripted.background.close()
    error = sent.exception(0)
    assert isinstance(error, BrokerLostError)
    assert (error.message, error.outcome) == ("the client was closed", "maybe_executed")
    error = scripted.submit("add", 1, 2).exception(0)
    assert isinstance(error, BrokerLostError)
    assert (error.message, error.outcome) == ("the client was closed", "not_started")
    scripted.background.close()


def test_closing_while_there_is_no_broker(tmp_path: Path) -> None:
    with client_of(f"ipc://{tmp_path}/none.sock") as client:
        future = client.submit("add", 1, 2)
    error = future.exception(0)
    assert isinstance(error, BrokerLostError)
    assert error.outcome == "not_started"


def test_a_callback_may_close_it(client: Client) -> None:
    future = client.submit("doze", 0.02)
    future.add_done_callback(lambda _: client.background.close())
    client.background._thread.join(PATIENCE_S)
    assert client.background.has_ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_ends_the_thread_leaves_no_future_open(client: Client) -> None:
    called = threading.Event()
    go_on = threading.Event()

    def callback(_: Future[Any]) -> None:
        called.set()
        go_on.wait(PATIENCE_S)
        raise SystemExit

    first = client.submit("doze", 0.02)
    first.add_done_callback(callback)
    assert called.wait(PATIENCE_S)
    second = client.submit("add", 1, 2)  # in the inbox of a thread that is about to end
    go_on.set()
    assert futures.wait([second], PATIENCE_S).done == {second}  # the loop still turns a few times
    client.background._thread.join(PATIENCE_S)
    assert isinstance(client.submit("add", 1, 2).exception(0), BrokerLostError)


def test_submitting_from_many_threads(client: Client) -> None:
    def submit_many(first: int) -> int:
        submitted = [client.submit("add", first, index) for index in range(200)]
        return sum(future.result(PATIENCE_S) for future in submitted)

    with futures.ThreadPoolExecutor(8) as threads:
        totals = list(threads.map(submit_many, range(8)))
    assert totals == [200 * first + 199 * 100 for first in range(8)]


def test_without_uvloop_asyncio_serves(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with client_of(pool.endpoint) as client:
        assert type(client.background._loop).__module__.startswith("asyncio")
        assert client.submit("add", 1, 2).result(PATIENCE_S) == 3
