"""Mirror of client/streaming.py: streams and events, of both kinds of pool, by both clients."""

import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import client_nodes
import pytest
from client_nodes import Point

from pronghorn.broker.wire.limits import KIB
from pronghorn.client import (
    AsyncClient,
    BrokerLostError,
    Client,
    DeadlineExceededError,
    Event,
    InvalidArgumentError,
    LocalPool,
    NodeError,
    Pool,
    Progress,
)

KINDS = ("points", "points_threaded", "points_async")
PATIENCE_S = 20.0


def told_of(count: int) -> list[Any]:
    return [
        told
        for number in range(count)
        for told in (
            Progress(float(number), float(count), "going"),
            Event("found", {"number": number}),
        )
    ]


def noted(path: Path) -> str:
    """Wait for what a generator writes when it is closed."""
    until = monotonic() + PATIENCE_S
    while not path.exists() or not (text := path.read_text()):
        assert monotonic() < until, "it was not closed"
        sleep(0.002)
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_parts_come_in_order(client: Client, kind: str) -> None:
    assert list(client.stream(kind, 200)) == [{"x": number, "y": 0} for number in range(200)]


@pytest.mark.parametrize("kind", KINDS)
async def test_parts_come_in_order_async(async_client: AsyncClient, kind: str) -> None:
    parts = [part async for part in async_client.stream(kind, 200)]
    assert parts == [{"x": number, "y": 0} for number in range(200)]


def test_by_function_they_have_their_type(client: Client) -> None:
    first: Point = next(client.stream(client_nodes.points, 1))
    assert first == Point(0)
    assert list(client.stream(client_nodes.points_async, count=2)) == [Point(0), Point(1)]


async def test_by_function_they_have_their_type_async(async_client: AsyncClient) -> None:
    stream = async_client.stream(client_nodes.points_async, 2)
    assert [part async for part in stream] == [Point(0), Point(1)]


def test_what_the_generator_returned_is_kept(client: Client) -> None:
    stream = client.stream("returns_more")
    assert stream.result is None
    assert list(stream) == [1]
    assert stream.result == "the end"
    assert list(stream) == [], "it is over"


def test_large_parts_come_in_buffers(client: Client) -> None:
    sizes = [len(part) for part in client.stream("blobs", 30, 200 * KIB)]
    assert sizes == [200 * KIB] * 30


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bad", "text"), [("raise", "in the middle"), ("part", "yielded a `object` that can't be")]
)
def test_what_fails_in_the_middle_fails_behind_its_parts(
    client: Client, kind: str, bad: str, text: str
) -> None:
    stream = client.stream(kind, 3, bad)
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(NodeError, match=text):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_what_fails_in_the_middle_fails_behind_its_parts_async(
    async_client: AsyncClient, kind: str
) -> None:
    stream = async_client.stream(kind, 3, "raise")
    assert len([await anext(stream) for _ in range(3)]) == 3
    with pytest.raises(NodeError, match="in the middle"):
        await anext(stream)


def leave_by_break(client: Client, stream: Any) -> None:
    for part in stream:
        if part["x"] == 3:
            break


def leave_by_close(client: Client, stream: Any) -> None:
    next(stream)
    stream.close()
    assert list(stream) == []


def leave_by_block(client: Client, stream: Any) -> None:
    with stream:
        next(stream)


def leave_by_error(client: Client, stream: Any) -> None:
    def read() -> None:
        with stream:
            explode(next(stream))

    with pytest.raises(ZeroDivisionError):
        read()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_block, leave_by_error])
def test_to_leave_it_cancels(
    client: Client, kind: str, leave: Callable[[Client, Any], None], tmp_path: Path
) -> None:
    path = tmp_path / "note"
    leave(client, client.stream(kind, count=10**9, path=str(path)))
    gc.collect()
    assert noted(path) == "closed, cancelled: True\n"
    assert client.call("add", 1, 2) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["break", "aclose", "block"])
async def test_to_leave_it_cancels_async(
    async_client: AsyncClient, kind: str, how: str, tmp_path: Path
) -> None:
    path = tmp_path / "note"
    stream = async_client.stream(kind, count=10**9, path=str(path))
    if how == "block":
        async with stream:
            await anext(stream)
    elif how == "aclose":
        await anext(stream)
        await stream.aclose()
        assert [part async for part in stream] == []
    else:
        async for part in stream:
            if part["x"] == 3:
                break
        del stream
    for _ in range(20):  # turns of this loop, on which it may run
        assert await async_client.call("add_async", 1, 2) == 3
    assert noted(path) == "closed, cancelled: True\n"


def test_nothing_is_sent_before_the_first_part_is_wanted(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "note"
    stream = client.stream("points", count=1, path=str(path))
    stream.close()
    client.call("add", 1, 2)
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_is_for_the_whole_stream(client: Client, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "note"
    with pytest.raises(DeadlineExceededError):
        for _ in client.stream(kind, count=10**9, path=str(path), timeout_s=0.1):
            pass
    assert "closed" in noted(path)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_is_for_the_whole_stream_async(
    async_client: AsyncClient, kind: str
) -> None:
    with pytest.raises(DeadlineExceededError):
        async for _ in async_client.stream(kind, count=10**9, timeout_s=0.1):
            pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_collects(client: Client, kind: str) -> None:
    assert client.call(kind, 3) == [{"x": number, "y": 0} for number in range(3)]
    assert client.submit(kind, 3).result() == client.call(kind, 3)


def test_a_call_by_function_collects_with_types(client: Client) -> None:
    assert client.call(client_nodes.points, 2) == [Point(0), Point(1)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_collects_async(async_client: AsyncClient, kind: str) -> None:
    assert await async_client.call(kind, 3) == [{"x": number, "y": 0} for number in range(3)]


def test_what_has_no_parts_is_not_streamed(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="it is no generator and has no parts"):
        next(client.stream("add", 1, 2))


def test_a_generator_is_not_mapped(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="can be called, not mapped"):
        list(client.map("points", [(1,)]))


def test_bad_params_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown parameter `size`"):
        next(client.stream("points", size=1))


async def test_bad_params_are_refused_async(async_client: AsyncClient) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown parameter `size`"):
        await anext(async_client.stream("points", size=1))


@pytest.mark.parametrize("node", ["tells", "tells_threaded", "tells_async"])
def test_events_are_told_in_order(client: Client, node: str) -> None:
    told: list[Any] = []
    assert client.call(node, 3, on_event=told.append) == 3
    assert told == told_of(3)
    told.clear()
    assert client.submit(node, 3, on_event=told.append).result() == 3
    assert told == told_of(3)


@pytest.mark.parametrize("node", ["tells", "tells_threaded", "tells_async"])
async def test_events_are_told_in_order_async(async_client: AsyncClient, node: str) -> None:
    told: list[Any] = []
    assert await async_client.call(node, 3, on_event=told.append) == 3
    assert told == told_of(3)


def test_of_many_events_none_is_lost(client: Client) -> None:
    told: list[Any] = []
    assert client.call("tells", 2000, on_event=told.append) == 2000
    numbers = [one.value["number"] for one in told if isinstance(one, Event)]
    assert numbers == list(range(2000))


def test_events_and_parts_come_in_the_order_they_were_made(client: Client) -> None:
    order: list[Any] = []
    for part in client.stream("tells_in_between", 3, on_event=order.append):
        order.append(part)
    expected = [one for number in range(3) for one in (Event("about to yield", number), number)]
    assert order == expected


async def test_events_and_parts_come_in_the_order_they_were_made_async(
    async_client: AsyncClient,
) -> None:
    order: list[Any] = []
    async for part in async_client.stream("tells_in_between", 3, on_event=order.append):
        order.append(part)
    expected = [one for number in range(3) for one in (Event("about to yield", number), number)]
    assert order == expected


def test_what_calls_within_calls_tell_nobody_hears(client: Client) -> None:
    told: list[Any] = []
    assert client.call("calls_what_tells", on_event=told.append) == [2, 6]
    assert told == []


def explode(told: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("node", ["tells", "tells_threaded", "tells_async"])
def test_what_the_listener_raises_ends_the_call(client: Client, node: str) -> None:
    with pytest.raises(ZeroDivisionError):
        client.call(node, 3, on_event=explode)
    with pytest.raises(ZeroDivisionError):
        client.submit(node, 3, on_event=explode).result()
    assert client.call("add", 1, 2) == 3


@pytest.mark.parametrize("node", ["tells", "tells_threaded", "tells_async"])
async def test_what_the_listener_raises_ends_the_call_async(
    async_client: AsyncClient, node: str
) -> None:
    with pytest.raises(ZeroDivisionError):
        await async_client.call(node, 3, on_event=explode)
    assert await async_client.call("add", 1, 2) == 3


def test_a_listener_has_to_be_callable(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="on_event is 5"):
        client.call("tells", 3, on_event=5)  # type: ignore[arg-type]


def test_a_listener_may_call_others(client: Client) -> None:
    """With one worker the node that tells may hold it up: it does not wait for us for ever."""
    told: list[Any] = []
    client.call("tells", 3, on_event=lambda one: told.append(client.call("add", 1, 2)))
    assert told == [3] * 6


def test_any_thread_may_read_on(client: Client) -> None:
    stream = client.stream("points", 100)
    parts = [next(stream)]
    thread = threading.Thread(target=lambda: parts.extend(stream))
    thread.start()
    thread.join(PATIENCE_S)
    assert len(parts) == 100


def test_many_streams_at_once(client: Client) -> None:
    streams = [client.stream(kind, 50) for kind in KINDS for _ in range(5)]
    for number in range(50):
        assert [next(stream)["x"] for stream in streams] == [number] * len(streams)
    assert [list(stream) for stream in streams] == [[]] * len(streams)


async def test_many_streams_at_once_async(async_client: AsyncClient) -> None:
    streams: list[AsyncIterator[Any]] = [
        async_client.stream(kind, 50) for kind in KINDS for _ in range(5)
    ]
    for number in range(50):
        assert [(await anext(stream))["x"] for stream in streams] == [number] * len(streams)


def test_a_slow_reader_suspends_the_node(pool: Pool, tmp_path: Path) -> None:
    """It runs ahead by what it has credit for, and not further."""
    path = tmp_path / "note"
    with pool.client() as client:
        stream = client.stream("blobs", 10**6, 100 * KIB)
        for _ in range(3):
            next(stream)
        assert client.call("add", 1, 2) == 3
        inbox: Any = stream._arrivals._inbox  # type: ignore[union-attr]
        kept = sum(len(buffers[0]) for _, buffers in inbox._news)
        assert kept < 1200 * KIB
        stream.close()
    assert not path.exists()


def read_on(stream: Any) -> None:
    for _ in stream:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_closing_the_client_ends_its_streams(any_pool: Pool | LocalPool, kind: str) -> None:
    client = any_pool.client()
    stream = client.stream(kind, 10**9)
    next(stream)
    client.close()
    with pytest.raises(BrokerLostError, match="the client was closed") as caught:
        read_on(stream)
    assert caught.value.outcome == "maybe_executed"


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_the_client_ends_its_streams_async(
    any_pool: Pool | LocalPool, kind: str
) -> None:
    client = any_pool.async_client()
    stream = client.stream(kind, 10**9)
    await anext(stream)
    await client.aclose()

    async def read_on() -> None:
        async for _ in stream:
            pass

    with pytest.raises(BrokerLostError, match="the client was closed") as caught:
        await read_on()
    assert caught.value.outcome == "maybe_executed"


@pytest.mark.parametrize("node", ["counts", "counts_threaded", "counts_async"])
def test_nodes_call_generators_and_get_lists(client: Client, node: str) -> None:
    assert client.call(node) == [3, 3, 3]


def test_generators_call_others(client: Client) -> None:
    assert list(client.stream("counts_in_parts")) == [3, 3, 3]
