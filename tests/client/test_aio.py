"""The API for asyncio, on both kinds of loop, on processes and in one process alike."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from time import monotonic
from typing import Any

import client_nodes
import pytest
from client_nodes import Colour, Point
from trees import PATIENCE_S, Fifo, children, command_line

from pronghorn.broker.wire.limits import KIB, MIB
from pronghorn.client import (
    AsyncClient,
    BrokerLostError,
    DeadlineExceededError,
    InvalidArgumentError,
    LocalPool,
    NodeError,
    NotFoundError,
    Pool,
    PronghornError,
)

AnyPool = Pool | LocalPool
ADDS = [client_nodes.add, client_nodes.add_async, client_nodes.add_threaded]
NAMES = ["add", "add_async", "add_threaded"]


async def listed(results: AsyncIterator[Any]) -> list[Any]:
    return [result async for result in results]


async def line_of(fifo: Fifo) -> str:
    return await asyncio.to_thread(fifo.line)


# --- call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_call_by_name(async_client: AsyncClient, name: str) -> None:
    assert await async_client.call(name, a=1, b=2) == 3
    assert await async_client.call(name, 1, 2, timeout_s=5.0) == 3
    assert await async_client.call(name, params={"a": 1, "b": 2}) == 3


@pytest.mark.parametrize("function", ADDS, ids=NAMES)
async def test_call_by_function(async_client: AsyncClient, function: Any) -> None:
    assert await async_client.call(function, 1, 2) == 3
    assert await async_client.call(function, 1, b=2, timeout_s=5.0) == 3


async def test_values_keep_their_types(async_client: AsyncClient) -> None:
    moment = datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-5)))
    assert await async_client.call(client_nodes.paint, Colour.RED) is Colour.GREEN
    assert await async_client.call(client_nodes.move, Point(1, 2)) == Point(2, 3)
    assert await async_client.call(client_nodes.evens, {1, 2}) == {2}
    day_later = await async_client.call(client_nodes.later, moment, timedelta(days=1))
    assert day_later == moment + timedelta(days=1)
    assert await async_client.call(client_nodes.named_like_options, timeout_s=1.5, params=2) == 3.0
    assert await listed(async_client.map(client_nodes.move, [(Point(1),)])) == [Point(2, 1)]


@pytest.mark.parametrize("length", [64 * KIB - 1, 64 * KIB, 4 * MIB])
async def test_bytes_of_any_length(async_client: AsyncClient, length: int) -> None:
    content = bytearray(b"a" * length)
    assert await async_client.call("echo", content) == content
    content += b"b"  # nobody holds it any more
    assert await async_client.call("echo", memoryview(content)) == content


@pytest.mark.slow
async def test_ten_thousand_calls_at_once(async_client: AsyncClient) -> None:
    calls = (async_client.call("add", index, 1) for index in range(10_000))
    assert await asyncio.gather(*calls) == list(range(1, 10_001))


async def test_nodes_and_ping(async_client: AsyncClient) -> None:
    nodes = {node.name: node for node in await async_client.nodes()}
    assert nodes["client_nodes.add"].doc == "Sum of two integers."
    assert 0 <= await async_client.ping() < PATIENCE_S
    assert 0 <= await async_client.ping(1.0) < 1.0


# --- errors and deadlines -----------------------------------------------------------------------


async def error_of(async_client: AsyncClient, *call: Any, **named: Any) -> PronghornError:
    with pytest.raises(PronghornError) as caught:
        await async_client.call(*call, **named)
    return caught.value


async def test_errors(async_client: AsyncClient) -> None:
    error = await error_of(async_client, "ad", 1, 2)
    assert isinstance(error, NotFoundError)
    assert error.message == "no node named 'ad'; did you mean 'add'?"
    error = await error_of(async_client, "add", a=1, b="two")
    assert isinstance(error, InvalidArgumentError)
    assert (error.details.field, error.outcome) == ("$.b", "not_started")
    for name in "divide", "divide_async":
        error = await error_of(async_client, name, 1, 0)
        assert isinstance(error, NodeError)
        assert (error.exception, error.outcome) == ("ZeroDivisionError", "executed")
        assert "return a / b" in error.traceback
    for arguments, named in ((len,), {}), (("add", object()), {}), (("add", 1), {"timeout_s": 0}):
        error = await error_of(async_client, *arguments, **named)
        assert isinstance(error, InvalidArgumentError)


async def test_over_the_limits(async_client: AsyncClient) -> None:
    error = await error_of(async_client, "echo", bytes(16 * MIB))
    assert isinstance(error, InvalidArgumentError)
    assert error.details.limit == 16 * MIB
    error = await error_of(async_client, "zeros", 16 * MIB)
    assert isinstance(error, NodeError)
    assert error.details.limit == 16 * MIB


async def test_deadlines(async_client: AsyncClient) -> None:
    begun = monotonic()
    error = await error_of(async_client, "doze", 60.0, timeout_s=0.05)
    assert isinstance(error, DeadlineExceededError)
    assert error.outcome == "maybe_executed"
    with pytest.raises(DeadlineExceededError):
        await listed(async_client.map("doze", [(60.0,)], timeout_s=0.05))
    assert monotonic() - begun < 1.0
    assert await async_client.call("doze", 0.01, timeout_s=10.0) == 0.01
    assert 0 < await async_client.call("time_left", timeout_s=10.0) <= 10.0


async def test_statistics_are_typed(async_client: AsyncClient) -> None:
    await async_client.call("add", 1, 2)
    nodes = {node.name: node for node in (await async_client.stats()).nodes}
    assert nodes["client_nodes.add"].calls >= 1


async def test_traces_and_times(async_client: AsyncClient) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    told = await async_client.within(traceparent=traceparent).call("traceparent")
    assert told[:36] == traceparent[:36]
    assert told != traceparent
    traced = await async_client.trace("add", 1, 2)
    assert traced.result == 3
    assert traced.waterfall is not None
    assert len(traced.waterfall.stages()) == 6


async def test_within(async_client: AsyncClient) -> None:
    hurried = async_client.within(0.05)
    assert await hurried.call(client_nodes.add, 1, 2) == 3
    with pytest.raises(DeadlineExceededError):
        await hurried.call(client_nodes.doze, 60.0)
    with pytest.raises(DeadlineExceededError):
        await listed(hurried.map(client_nodes.doze, [(60.0,)]))
    assert await hurried.within(None).call("time_left") is None
    assert await async_client.call("time_left") is None


# --- cancelling ---------------------------------------------------------------------------------


async def test_cancelling_a_task_cancels_its_call(async_client: AsyncClient, fifo: Fifo) -> None:
    task = asyncio.create_task(async_client.call("linger", fifo.path))
    assert await line_of(fifo) == "begun"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await line_of(fifo) == "cancelled"


async def test_a_timeout_of_asyncio_cancels_the_call(async_client: AsyncClient, fifo: Fifo) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await async_client.call("linger", fifo.path)
    assert await line_of(fifo) == "begun"
    assert await line_of(fifo) == "cancelled"
    assert await async_client.call("add", 1, 2) == 3


async def test_a_task_group_that_fails_cancels_its_calls(
    async_client: AsyncClient, fifo: Fifo
) -> None:
    async def fail_soon() -> None:
        assert await line_of(fifo) == "begun"
        await async_client.call("divide", 1, 0)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(async_client.call("linger", fifo.path))
            group.create_task(fail_soon())

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert [type(error) for error in caught.value.exceptions] == [NodeError]
    assert await line_of(fifo) == "cancelled"


async def test_cancelling_what_has_not_begun(async_client: AsyncClient) -> None:
    task = asyncio.create_task(async_client.call("add", 1, 2))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await async_client.call("add", 1, 2) == 3


# --- map ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_map(async_client: AsyncClient, name: str, count: int) -> None:
    items = [{"a": index, "b": 1} for index in range(count)]
    assert await listed(async_client.map(name, items)) == list(range(1, count + 1))
    unordered = await listed(async_client.map(name, items, ordered=False))
    assert sorted(unordered) == list(range(1, count + 1))


async def test_map_of_items_in_every_form(async_client: AsyncClient) -> None:
    items = [(1, 2), [3, 4], {"a": 5, "b": 6}]
    assert await listed(async_client.map("add", iter(items), chunk_size=2)) == [3, 7, 11]


async def test_map_refuses_wrong_options_at_once(async_client: AsyncClient) -> None:
    with pytest.raises(InvalidArgumentError, match="chunk_size is 0"):
        async_client.map("add", [], chunk_size=0)
    with pytest.raises(InvalidArgumentError, match="must be above 0"):
        async_client.map("add", [], timeout_s=-1)
    with pytest.raises(InvalidArgumentError, match="is not a node"):
        async_client.map(len, [])


async def test_map_sends_nothing_before_it_is_asked(async_client: AsyncClient) -> None:
    taken: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for index in range(10):
            taken.append(index)
            yield index, 1

    results = async_client.map("add", items())
    await asyncio.sleep(0)
    assert taken == []
    assert await listed(results) == list(range(1, 11))


async def test_map_over_what_never_ends(async_client: AsyncClient) -> None:
    items = ((index, 1) for index in itertools.count())
    given: list[int] = []
    async with aclosing(async_client.map("add", items)) as results:
        async for result in results:
            given.append(result)
            if result == 2000:
                break
    assert given == list(range(1, 2001))
    assert await async_client.call("add", 1, 2) == 3


async def test_leaving_a_map_cancels_the_rest(async_client: AsyncClient, fifo: Fifo) -> None:
    items: list[Any] = [(0, 1), (1, 1)]
    results = async_client.map("divide", items, chunk_size=1)
    async with aclosing(results):
        assert await anext(results) == 0.0
    lingering = async_client.map("linger", [(fifo.path,)])
    task = asyncio.create_task(anext(lingering))
    assert await line_of(fifo) == "begun"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await line_of(fifo) == "cancelled"


@pytest.mark.parametrize("name", ["divide", "divide_async"])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
async def test_map_gives_what_comes_before_the_first_error(
    async_client: AsyncClient, name: str, chunk_size: int | None
) -> None:
    results = async_client.map(
        name, [(10, 5 - index) for index in range(10)], chunk_size=chunk_size
    )
    given = [await anext(results) for _ in range(5)]
    assert given == [2.0, 2.5, 10 / 3, 5.0, 10.0]
    with pytest.raises(NodeError, match="division by zero"):
        await anext(results)
    assert await listed(results) == []


@pytest.mark.parametrize("name", ["divide", "divide_async"])
async def test_map_with_errors_as_results(async_client: AsyncClient, name: str) -> None:
    items: list[Any] = [(1, 1), (1, 0), (1,), (4, 2)]
    results = await listed(async_client.map(name, items, return_exceptions=True))
    assert [type(result) for result in results] == [float, NodeError, InvalidArgumentError, float]


async def test_map_of_large_items_and_results(async_client: AsyncClient) -> None:
    contents = [bytes([index]) * (300 * KIB) for index in range(20)]
    items = [(content,) for content in contents]
    assert await listed(async_client.map("echo", items)) == contents


async def test_map_of_an_item_over_the_limit(async_client: AsyncClient) -> None:
    items = [(b"x",), (bytes(17 * MIB),), (b"yy",)]
    results = async_client.map("size", items, chunk_size=1, return_exceptions=True)
    one, too_large, two = await listed(results)
    assert (one, two) == (1, 2)
    assert isinstance(too_large, InvalidArgumentError)


async def test_maps_at_once(async_client: AsyncClient) -> None:
    maps = [
        async_client.map("add", [(index, number) for index in range(200)]) for number in range(5)
    ]
    totals = await asyncio.gather(*map(listed, maps))
    assert totals == [[index + number for index in range(200)] for number in range(5)]


async def test_map_without_a_broker(tmp_path: Path) -> None:
    client = AsyncClient(f"ipc://{tmp_path}/none.sock", connect_timeout_s=0.05)
    for return_exceptions in False, True:
        results = client.map("add", [(1, 2)] * 10, return_exceptions=return_exceptions)
        with pytest.raises(BrokerLostError, match="no broker answers"):
            await listed(results)
    await client.aclose()


# --- the end ------------------------------------------------------------------------------------


async def test_clients_are_closed_by_their_block(any_pool: AnyPool) -> None:
    async with any_pool.async_client() as client:
        assert await client.call("add", 1, 2) == 3
    for attempt in (
        client.call("add", 1, 2),
        client.call("add_async", 1, 2),
        anext(client.map("add", [(1, 2)])),
        client.ping(),
        client.__aenter__(),
    ):
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            await attempt
        assert caught.value.outcome == "not_started"


async def test_closing_ends_open_calls(any_pool: AnyPool, fifo: Fifo) -> None:
    client = any_pool.async_client()
    calls = [asyncio.create_task(client.call("linger", fifo.path)) for _ in range(3)]
    for _ in calls:
        assert await line_of(fifo) == "begun"
    await client.aclose()
    for call in calls:
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            await call
        assert caught.value.outcome == "maybe_executed"
    for _ in calls:
        assert await line_of(fifo) == "cancelled"


@pytest.mark.slow
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_broker_killed_in_the_middle(fifo: Fifo) -> None:
    pool = await asyncio.to_thread(Pool, client_nodes.FILE, workers=1)
    async with pool.async_client() as client:
        waiting = [asyncio.create_task(client.call("linger", fifo.path)) for _ in range(5)]
        for _ in waiting:
            assert await line_of(fifo) == "begun"
        supervisor = pool._tree.supervisor_pid
        (broker,) = [pid for pid in children(supervisor) if "server" in command_line(pid)]
        killed = monotonic()
        os.kill(broker, signal.SIGKILL)
        for task in waiting:
            with pytest.raises(BrokerLostError) as caught:
                await task
            assert caught.value.outcome == "maybe_executed"
        assert monotonic() - killed < 0.1
        assert await client.call("add", 1, 2) == 3  # waits for the new broker
        assert await listed(client.map("add", [(1, 2)])) == [3]
    await asyncio.to_thread(pool.close)
