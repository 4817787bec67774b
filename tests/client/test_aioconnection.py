"""A connection on an event loop, against a scripted broker."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import msgspec
import pytest
import pytest_asyncio
from descriptors import descriptors_left
from scripted_broker import (
    PROBE,
    ScriptedBroker,
    Transport,
    scripted_broker,
    wait_until_greeted,
    wait_until_lost,
)
from trees import PATIENCE_S

from pronghorn.broker.wire.errors import BrokerLostError, OverloadedError, ProtocolError
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import Call, Cancel, Error, Goodbye, MapChunk, Ping, Result
from pronghorn.client.aioconnection import AsyncConnection
from pronghorn.client.completions import Completion
from pronghorn.client.sockets import RETRY_S, Sockets

NO_PARAMS = (b"\xc0", ())
NIL = msgspec.Raw(b"\xc0")
SOON_S = 0.1

T = TypeVar("T")


class Client:
    """What uses a connection: it knows its requests by their futures."""

    def __init__(self, endpoint: str, connect_timeout_s: float = 5.0) -> None:
        self.sockets = Sockets(endpoint)
        self.connection: AsyncConnection[asyncio.Future[Any]] = AsyncConnection(
            self.sockets,
            client="test",
            connect_timeout_s=connect_timeout_s,
            deliver=self.deliver,
        )

    @staticmethod
    def deliver(completion: Completion[asyncio.Future[Any]]) -> None:
        completion.handle.set_result(completion.reply)

    def call(self, node: str = "add", timeout_ms: float | None = None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.connection.call(future, node, NO_PARAMS, timeout_ms)
        return future

    def close(self) -> None:
        self.connection.close()
        self.sockets.close()


@pytest_asyncio.fixture
async def client(broker: ScriptedBroker) -> AsyncIterator[Client]:
    """A client that has been welcomed."""
    greeting = play(broker, ScriptedBroker.greet)
    client = Client(broker.endpoint)
    await client.connection.ready()
    await greeting
    yield client
    client.close()


def play(broker: ScriptedBroker, script: Callable[[ScriptedBroker], T]) -> asyncio.Future[T]:
    return asyncio.wrap_future(broker.play(script))


async def test_a_call_and_its_result(broker: ScriptedBroker, client: Client) -> None:
    answered = play(broker, lambda broker: broker.answer(7))
    reply = await client.call(timeout_ms=500.0)
    assert isinstance(await answered, Call)
    assert msgspec.msgpack.decode(reply.value) == 7


async def test_calls_of_one_turn_leave_together(broker: ScriptedBroker, client: Client) -> None:
    def answer_all(broker: ScriptedBroker) -> list[int]:
        taken: list[Any] = []
        lengths = []
        while len(taken) < 300:
            message = broker.take()
            messages = message if isinstance(message, list) else [message]
            lengths.append(len(messages))
            taken += messages
        for call in taken:
            broker.send(Result(call.id, NIL))
        return lengths

    answered = play(broker, answer_all)
    replies = await asyncio.gather(*(client.call() for _ in range(300)))
    lengths = await answered
    assert sum(lengths) == len(replies) == 300
    assert len(lengths) <= 5, "the first alone, bundles that are full, the rest"


async def test_calls_beyond_the_grant_wait_for_replies(
    tmp_path: Path, transport: Transport
) -> None:
    with scripted_broker(tmp_path, transport, Limits(grant_requests=4)) as broker:

        def answer_ten(broker: ScriptedBroker) -> int:
            broker.greet()
            most = open_ = ended = 0
            calls: list[Any] = []
            while ended < 10:
                if (open_ < 4 and ended + open_ < 10) or not calls:
                    message = broker.take()
                    messages = message if isinstance(message, list) else [message]
                    new = [one for one in messages if isinstance(one, Call)]
                    calls += new
                    open_ += len(new)
                    most = max(most, open_)
                    continue
                broker.send(Result(calls.pop(0).id, NIL))
                open_ -= 1
                ended += 1
            return most

        answered = play(broker, answer_ten)
        client = Client(broker.endpoint)
        await client.connection.ready()
        await asyncio.gather(*(client.call() for _ in range(10)))
        assert await answered == 4
        client.close()


async def test_a_chunk_and_a_ping(broker: ScriptedBroker, client: Client) -> None:
    loop = asyncio.get_running_loop()
    client.connection.chunk(loop.create_future(), "add", b"\x91\xc0", None)
    client.connection.ping(loop.create_future())
    chunk, ping = await play(broker, ScriptedBroker.take)
    assert isinstance(chunk, MapChunk)
    assert isinstance(ping, Ping)


async def test_cancelling(broker: ScriptedBroker, client: Client) -> None:
    loop = asyncio.get_running_loop()
    request_id = client.connection.call(loop.create_future(), "add", NO_PARAMS, None)
    assert isinstance(await play(broker, ScriptedBroker.take), Call)
    client.connection.cancel(request_id)
    assert await play(broker, ScriptedBroker.take) == Cancel(request_id)


async def test_a_lost_broker_ends_calls_at_once_and_the_next_one_is_found(
    broker: ScriptedBroker, client: Client
) -> None:
    def die(broker: ScriptedBroker) -> float:
        broker.take()
        begun = monotonic()
        broker.stop()
        return begun

    died = play(broker, die)
    reply = await client.call()
    assert monotonic() - await died < SOON_S
    assert isinstance(reply, Error)
    assert (reply.code, reply.details.outcome) == ("BROKER_LOST", "maybe_executed")
    assert not client.connection.check()

    def begin_anew(broker: ScriptedBroker) -> None:
        broker.start()
        broker.greet()
        broker.answer(9)

    began = play(broker, begin_anew)
    await client.connection.ready()
    assert client.connection.check()
    assert msgspec.msgpack.decode((await client.call()).value) == 9
    await began


async def test_a_broker_that_dies_in_the_handshake_is_waited_for(broker: ScriptedBroker) -> None:
    def die_twice(broker: ScriptedBroker) -> None:
        assert broker.take() == PROBE
        broker.stop()
        broker.start()
        assert broker.take() == PROBE
        broker.send(broker.welcome(None))
        broker.take()
        broker.stop()
        broker.start()
        broker.greet()

    died = play(broker, die_twice)
    client = Client(broker.endpoint)
    waiting = client.call()  # sent when there is somebody to send it to
    await client.connection.ready()
    await died
    await play(broker, ScriptedBroker.answer)
    assert isinstance(await waiting, Result)
    client.close()


async def test_a_loop_that_stood_still_learns_of_a_loss_before_it_sends(
    broker: ScriptedBroker, client: Client
) -> None:
    client.connection._checked_at = 0.0
    broker.stop()
    wait_until_lost(client.connection._socket)
    assert not client.connection.check()


@pytest.mark.parametrize("transport", ["zmq"], indirect=True)
async def test_a_loop_that_stood_still_learns_of_a_new_broker_before_it_sends(
    broker: ScriptedBroker, client: Client
) -> None:
    client.connection._checked_at = 0.0
    broker.stop()
    wait_until_lost(client.connection._socket)
    began = broker.play(lambda broker: (broker.start(), broker.greet()))
    wait_until_greeted(client.connection._socket)
    assert not client.connection.check()
    await client.connection.ready()
    began.result()


async def test_a_message_that_can_not_be_sent_ends_what_is_in_it(
    broker: ScriptedBroker, client: Client
) -> None:
    broker.stop()
    wait_until_lost(client.connection._socket)
    reply = await client.call()
    assert isinstance(reply, Error)
    assert reply.code == "BROKER_LOST"


async def test_another_loop_is_not_answered_for(broker: ScriptedBroker, client: Client) -> None:
    async def check() -> bool:
        return client.connection.check()

    assert await asyncio.to_thread(asyncio.run, check()) is False


async def test_no_broker(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/none.sock", connect_timeout_s=0.05)
    with pytest.raises(BrokerLostError, match=r"no broker answers at .* within 0\.05 s") as caught:
        await client.connection.ready()
    assert caught.value.outcome == "not_started"
    client.close()


async def test_what_is_no_broker_is_told_and_left(broker: ScriptedBroker) -> None:
    played = play(broker, lambda broker: (broker.take(), broker.send(b"who is there?")))
    client = Client(broker.endpoint)
    with pytest.raises(ProtocolError, match="not a request"):
        await client.connection.ready()
    await played
    assert client.connection.is_closed
    client.close()


async def test_a_broker_that_breaks_the_protocol_ends_all_calls(
    broker: ScriptedBroker, client: Client
) -> None:
    played = play(broker, lambda broker: (broker.take(), broker.send(b"\x91\x31")))
    reply = await client.call()
    assert isinstance(reply, Error)
    assert (reply.code, reply.details.outcome) == ("BROKER_LOST", "maybe_executed")
    await played
    assert client.connection.is_closed
    with pytest.raises(ProtocolError):
        await client.connection.ready()


async def test_closing_ends_calls_and_says_goodbye(broker: ScriptedBroker, client: Client) -> None:
    future = client.call()
    assert isinstance(await play(broker, ScriptedBroker.take), Call)
    client.connection.close()
    client.connection.close()
    reply = await future
    assert reply.code == "BROKER_LOST"
    assert isinstance(await play(broker, ScriptedBroker.take), Goodbye)
    client.connection.cancel(1)  # as tasks do that are cancelled at the same time
    client.connection._on_readable()
    client.connection._on_lost()
    await asyncio.sleep(0)


async def test_many_who_wait_share_the_attempts_to_connect(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/none.sock", connect_timeout_s=10 * RETRY_S)
    attempts = 0
    connect = client.connection._socket.connect

    def count() -> bool:
        nonlocal attempts
        attempts += 1
        return connect()

    client.connection._socket.connect = count  # type: ignore[method-assign]
    waiting = [asyncio.create_task(client.connection.ready()) for _ in range(100)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, BrokerLostError) for one in ended)
    assert 3 <= attempts <= 12
    client.close()


@pytest.mark.parametrize("transport", ["stream"], indirect=True)
async def test_what_can_not_be_connected_to_is_told_to_all_who_wait(
    broker: ScriptedBroker, tmp_path: Path
) -> None:
    broker.stop()
    client = Client(broker.endpoint)
    waiting = [asyncio.create_task(client.connection.ready()) for _ in range(2)]
    await asyncio.sleep(0)
    with descriptors_left(0):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, OverloadedError) for one in ended)
    assert client.connection.is_closed
    client.close()


@pytest.mark.parametrize("transport", ["stream"], indirect=True)
async def test_a_connection_lost_right_after_the_welcome_is_made_anew(
    broker: ScriptedBroker, client: Client
) -> None:
    """Who was told of the welcome goes on only when it still holds."""

    def begin_anew(broker: ScriptedBroker) -> None:
        broker.start()
        broker.greet()
        broker.stop()
        broker.start()
        broker.greet()
        broker.answer(3)

    broker.stop()
    wait_until_lost(client.connection._socket)
    assert not client.connection.check()
    began = play(broker, begin_anew)
    waiting = asyncio.create_task(client.connection.ready())
    await client.connection._welcomed.wait()  # and hear of it before the one that begins now
    client.connection._lost("as soon as it was told")
    async with asyncio.timeout(PATIENCE_S):
        await waiting
        assert msgspec.msgpack.decode((await client.call()).value) == 3
        await began


async def test_a_call_whose_time_is_over_before_it_could_be_sent(
    tmp_path: Path, transport: Transport
) -> None:
    with scripted_broker(tmp_path, transport, Limits(grant_requests=4)) as broker:
        greeting = play(broker, ScriptedBroker.greet)
        client = Client(broker.endpoint)
        await client.connection.ready()
        await greeting
        sent = [client.call(timeout_ms=5000.0) for _ in range(4)]
        begun = monotonic()
        late = [client.call(timeout_ms=1000.0 * after_s) for after_s in (0.1, 0.05)]
        for future, after_s in zip(reversed(late), (0.05, 0.1), strict=True):
            reply = await future
            assert after_s - 0.01 <= monotonic() - begun < after_s + SOON_S
            assert (reply.code, reply.details.outcome) == ("DEADLINE_EXCEEDED", "not_started")
        assert not any(future.done() for future in sent)
        client.close()


async def test_closing_ends_who_waits_for_a_welcome(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/none.sock")
    waiting = asyncio.create_task(client.connection.ready())
    await asyncio.sleep(0)
    client.close()
    with pytest.raises(BrokerLostError, match="the client was closed"):
        await waiting


async def test_closing_before_the_first_turn(tmp_path: Path) -> None:
    Client(f"ipc://{tmp_path}/none.sock").close()
    await asyncio.sleep(0)


def test_closing_when_the_loop_is_closed_already(broker: ScriptedBroker) -> None:
    greeting = broker.play(ScriptedBroker.greet)

    async def connect() -> Client:
        client = Client(broker.endpoint)
        await client.connection.ready()
        return client

    client = asyncio.run(connect())
    greeting.result()
    client.close()
    assert isinstance(broker.take(), Goodbye)


async def test_many_messages_at_once_leave_room_for_others(
    broker: ScriptedBroker, client: Client
) -> None:
    futures = [client.call() for _ in range(200)]

    def answer_all(broker: ScriptedBroker) -> None:
        calls: list[Any] = []
        while len(calls) < 200:
            message = broker.take()
            calls += message if isinstance(message, list) else [message]
        broker.send(*(Result(call.id, NIL) for call in calls))

    answered = broker.play(answer_all)
    await asyncio.sleep(0)
    answered.result()  # the loop stands still while all replies come
    await asyncio.gather(*futures)


def test_nothing_is_kept_of_a_thread_that_has_ended(broker: ScriptedBroker) -> None:
    greeting = broker.play(ScriptedBroker.greet)

    async def visit() -> None:
        client = Client(broker.endpoint)
        await client.connection.ready()
        client.close()

    thread = threading.Thread(target=lambda: asyncio.run(visit()))
    thread.start()
    thread.join()
    greeting.result()
