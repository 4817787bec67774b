"""The async client's connection: made when needed, on which loop, in which process, and its end."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from scripted_broker import ScriptedBroker, Transport, scripted_broker, wait_until_lost
from trees import PATIENCE_S, Fifo

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    ProtocolError,
)
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.messages import Call, Cancel, Goodbye
from pronghorn.client import AsyncClient, Pool
from pronghorn.client.connection import LATE_S

SOON_S = 0.1


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_calls_at_once_share_one_connection(pool: Pool) -> None:
    client = pool.async_client()
    answers = await asyncio.gather(*(client.call("add", index, 1) for index in range(100)))
    assert answers == list(range(1, 101))
    assert (await client.call("pronghorn.stats"))["sessions"] >= 1
    before = descriptors()
    await asyncio.gather(*(client.call("add", index, 1) for index in range(100)))
    assert descriptors() == before
    await client.aclose()


@pytest.mark.slow
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_call_that_nobody_answers_is_given_up(broker: ScriptedBroker) -> None:
    taken = broker.play(lambda broker: (broker.greet(), broker.take())[1])
    async with AsyncClient(broker.endpoint) as client:
        begun = monotonic()
        with pytest.raises(DeadlineExceededError, match="no word from the broker") as caught:
            await client.call("add", 1, 2, timeout_s=0.02)
        assert monotonic() - begun < 0.02 + LATE_S + SOON_S
        assert caught.value.outcome == "maybe_executed"
        call = taken.result()
        assert await asyncio.to_thread(broker.take) == Cancel(call.id)


async def test_a_ping_that_is_not_answered(broker: ScriptedBroker) -> None:
    greeted = broker.play(ScriptedBroker.greet)
    async with AsyncClient(broker.endpoint) as client:
        greeted.result()
        with pytest.raises(DeadlineExceededError, match=r"a ping within 0\.02 s"):
            await client.ping(0.02)


async def test_what_is_too_large_is_refused(tmp_path: Path, transport: Transport) -> None:
    with scripted_broker(tmp_path, transport, Limits(request_bytes=4 * KIB)) as broker:
        greeted = broker.play(ScriptedBroker.greet)
        async with AsyncClient(broker.endpoint) as client:
            greeted.result()
            with pytest.raises(InvalidArgumentError, match="limit is 4096"):
                await client.call("size", b"x" * 5000)
            with pytest.raises(InvalidArgumentError, match="limit is 4096"):
                async for _ in client.map("size", [(b"x" * 5000,)]):
                    pass


async def test_a_client_that_can_not_connect_leaves_nothing_and_can_try_again(
    broker: ScriptedBroker,
) -> None:
    broker.stop()
    client = AsyncClient(broker.endpoint, connect_timeout_s=0.05)
    before = descriptors()
    for _ in range(2):
        with pytest.raises(BrokerLostError, match="no broker answers"):
            async with client:
                pass
        assert descriptors() == before
    began = broker.play(lambda broker: (broker.start(), broker.greet(), broker.answer(1)))
    client._transport._connect_timeout_s = 5.0  # type: ignore[attr-defined]
    async with client:
        assert await client.call("add", 1, 2) == 1
    began.result()


async def test_without_a_broker_each_call_waits_for_one(tmp_path: Path) -> None:
    client = AsyncClient(f"ipc://{tmp_path}/none.sock", connect_timeout_s=0.05)
    for _ in range(2):
        with pytest.raises(BrokerLostError, match="no broker answers") as caught:
            await client.call("add", 1, 2)
        assert caught.value.outcome == "not_started"
    await client.aclose()


async def test_a_call_s_deadline_holds_where_no_broker_is(tmp_path: Path) -> None:
    client = AsyncClient(f"ipc://{tmp_path}/none.sock")
    with pytest.raises(DeadlineExceededError, match="no broker answered") as caught:
        await client.call("add", 1, 2, timeout_s=0.05)
    assert caught.value.outcome == "not_started"
    with pytest.raises(DeadlineExceededError, match="no broker answered"):
        await anext(client.map("add", [(1, 2)], timeout_s=0.05))
    await client.aclose()


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:port", "ipc://relative"])
async def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    client = AsyncClient(endpoint)
    for _ in range(2):
        with pytest.raises(InvalidArgumentError):
            await client.call("add", 1, 2)
    await client.aclose()


async def test_what_is_no_broker_is_told_and_tried_again(broker: ScriptedBroker) -> None:
    def chat_first(broker: ScriptedBroker) -> None:
        broker.take()
        broker.send(b"who is there?")
        broker.take()  # the goodbye
        broker.greet()
        broker.answer(5)

    chatted = broker.play(chat_first)
    client = AsyncClient(broker.endpoint)
    with pytest.raises(ProtocolError, match="not a request"):
        await client.call("add", 1, 2)
    assert await client.call("add", 1, 2) == 5
    chatted.result()
    await client.aclose()


async def test_a_broker_restarted_while_the_loop_stood_still_makes_no_error(
    broker: ScriptedBroker,
) -> None:
    greeted = broker.play(ScriptedBroker.greet)
    client = AsyncClient(broker.endpoint)
    async with client:
        greeted.result()
        connection: Any = client._transport._connection  # type: ignore[attr-defined]
        connection._checked_at = 0.0
        broker.stop()
        wait_until_lost(connection._socket)
        began = broker.play(lambda broker: (broker.start(), broker.greet(), broker.answer(6)))
        assert await client.call("add", 1, 2) == 6
        began.result()


async def test_closing_ends_open_calls(pool: Pool, fifo: Fifo) -> None:
    client = pool.async_client()
    calls = [asyncio.create_task(client.call("linger", fifo.path)) for _ in range(3)]
    mapped = client.map("linger", [(fifo.path,)])
    calls.append(asyncio.create_task(anext(mapped)))
    for _ in calls:
        assert await asyncio.to_thread(fifo.line) == "begun"
    begun = monotonic()
    await client.aclose()
    for call in calls:
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            await call
        assert caught.value.outcome == "maybe_executed"
    assert monotonic() - begun < SOON_S
    for _ in calls:
        assert await asyncio.to_thread(fifo.line) == "cancelled"


async def test_closing_ends_who_waits_for_a_broker(tmp_path: Path) -> None:
    client = AsyncClient(f"ipc://{tmp_path}/none.sock")
    calls = [asyncio.create_task(client.call("add", 1, 2)) for _ in range(3)]
    await asyncio.sleep(0)
    await client.aclose()
    for call in calls:
        with pytest.raises(BrokerLostError, match="the client was closed"):
            await call


async def test_a_closed_client_refuses_everything(pool: Pool) -> None:
    for client in pool.async_client(), pool.async_client():
        await client.aclose()
        await client.aclose()
        for attempt in (
            client.call("add", 1, 2),
            client.ping(),
            anext(client.map("add", [(1, 2)])),
            client.__aenter__(),
        ):
            with pytest.raises(BrokerLostError, match="the client was closed") as caught:
                await attempt
            assert caught.value.outcome == "not_started"


async def test_cancelling_a_task_cancels_its_call(broker: ScriptedBroker) -> None:
    taken = broker.play(lambda broker: (broker.greet(), broker.take())[1])
    async with AsyncClient(broker.endpoint) as client:
        call = asyncio.create_task(client.call("add", 1, 2))
        sent = await asyncio.wrap_future(taken)
        assert isinstance(sent, Call)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(broker.take) == Cancel(sent.id)
    assert isinstance(broker.take(), Goodbye)


def test_one_loop_after_the_other(pool: Pool) -> None:
    client = pool.async_client()

    async def call() -> int:
        answer: int = await client.call("add", 1, 2)
        return answer

    before = descriptors()
    assert [asyncio.run(call()) for _ in range(3)] == [3, 3, 3]
    loop = asyncio.new_event_loop()
    assert [loop.run_until_complete(call()) for _ in range(3)] == [3, 3, 3]
    asyncio.run(client.aclose())
    loop.close()
    assert descriptors() == before


async def test_two_loops_at_once_need_two_clients(pool: Pool) -> None:
    async def call(client: AsyncClient) -> int:
        answer: int = await client.call("add", 1, 2)
        return answer

    def in_thread(client: AsyncClient) -> int:
        return asyncio.run(call(client))

    other = pool.async_client()
    async with pool.async_client() as mine:
        with ThreadPoolExecutor(1) as thread:
            wrong = thread.submit(in_thread, mine)
            assert isinstance(await asyncio.to_thread(wrong.exception), RuntimeError)
            assert await asyncio.to_thread(thread.submit(in_thread, other).result) == 3
        assert await call(mine) == 3
        assert await call(other) == 3  # its loop is closed, so this one may go on with it
    await other.aclose()


FORK = """
import asyncio, os, sys
from pronghorn.client import AsyncClient

client = AsyncClient(sys.argv[1])

async def calls():
    return await asyncio.gather(client.call("add", 1, 2), client.call("add", 3, 4))

async def fork_and_call():
    assert await calls() == [3, 7]
    pid = os.fork()
    if pid == 0:
        return pid
    assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
    return await calls()

async def call_and_close():
    assert await calls() == [3, 7]
    await client.aclose()

loop = asyncio.new_event_loop()
answer = loop.run_until_complete(fork_and_call())
if answer == 0:
    asyncio.run(call_and_close())
    os._exit(0)
print(answer)
loop.run_until_complete(client.aclose())
"""


@pytest.mark.slow
def test_after_a_fork_parent_and_child_both_work(pool: Pool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, pool.endpoint], capture_output=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.decode() == "[3, 7]\n"


def test_clients_of_many_threads(pool: Pool) -> None:
    begin = threading.Barrier(8)

    async def work(number: int) -> int:
        async with pool.async_client() as client:
            begin.wait(PATIENCE_S)
            return sum(await asyncio.gather(*(client.call("add", number, 1) for _ in range(50))))

    with ThreadPoolExecutor(8) as threads:
        totals = list(threads.map(lambda number: asyncio.run(work(number)), range(8)))
    assert totals == [50 * (number + 1) for number in range(8)]
