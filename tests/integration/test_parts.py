"""Streaming nodes as clients of the bare wire see them: parts, credit, and collected lists."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.msgpack import encode
from pools import served
from raw_client import CALL, CANCEL, ERROR, RESULT, RawClient, RawStreamClient
from raw_sockets import RawSockets

from pronghorn.client.pool import Pool

CREDIT, PART = 38, 51


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with served(tmp_path_factory.mktemp("parts"), workers=1) as pool:
        yield pool


@pytest.fixture(params=["zmq", "stream"])
def client(request: pytest.FixtureRequest, pool: Pool, sockets: RawSockets) -> Iterator[RawClient]:
    """A client over ZeroMQ, and one over a stream."""
    if request.param == "zmq":
        yield RawClient(sockets, pool.endpoint)
        return
    client = RawStreamClient(pool.endpoint)
    yield client
    client.close()


def start(client: RawClient, n: int, items: int = 64, bytes_: int = 10**6, **more: Any) -> None:
    client.send([CALL, 1, "count", [n], {"stream": [items, bytes_], **more}])


@pytest.mark.parametrize("known", [False, True])
def test_parts_then_the_end(client: RawClient, known: bool) -> None:
    if known:
        client.hello()
    start(client, 3)
    replies = [client.receive() for _ in range(4)]
    assert replies == [*([PART, 1, seq, seq, 0] for seq in range(3)), [RESULT, 1, None, 0]]
    assert client.nothing_more_comes()


def test_no_part_without_credit(client: RawClient) -> None:
    start(client, 5, items=2)
    assert [client.receive()[2] for _ in range(2)] == [0, 1]
    assert client.nothing_more_comes()
    client.send([CREDIT, 1, 1, 0])
    assert client.receive() == [PART, 1, 2, 2, 0]
    client.send([CREDIT, 1, 9, 9])
    assert [client.receive()[0] for _ in range(3)] == [PART, PART, RESULT]


@pytest.mark.parametrize(
    ("credit", "text"), [([-1, 5], "is negative"), ([2**62, 5], "its grant"), ([5, 2**62], "grant")]
)
def test_bad_credit_ends_the_call(client: RawClient, credit: list[int], text: str) -> None:
    start(client, 10**9, items=0)
    kind, id_, code, message, _ = client.ask([CREDIT, 1, *credit])
    assert (kind, id_, code) == (ERROR, 1, "INVALID_ARGUMENT")
    assert text in message
    assert client.nothing_more_comes()


def test_credit_for_nothing_is_ignored(client: RawClient) -> None:
    client.send([CREDIT, 77, -1, -1])
    assert client.nothing_more_comes()


def test_a_cancel_ends_it(client: RawClient) -> None:
    start(client, 10**9, items=3)
    assert [client.receive()[2] for _ in range(3)] == [0, 1, 2]
    assert client.ask([CANCEL, 1])[:3] == [ERROR, 1, "CANCELLED"]
    assert client.nothing_more_comes()


def test_a_deadline_ends_it(client: RawClient) -> None:
    start(client, 10**9, items=3, timeout_ms=50)
    assert [client.receive()[2] for _ in range(3)] == [0, 1, 2]
    assert client.receive()[:3] == [ERROR, 1, "DEADLINE_EXCEEDED"]


def test_what_has_no_parts_is_refused(client: RawClient) -> None:
    kind, _, code, message, details = client.ask([CALL, 1, "add", [1, 2], {"stream": [1, 1]}])
    assert (kind, code, details["outcome"]) == (ERROR, "INVALID_ARGUMENT", "not_started")
    assert "it is no generator" in message


def test_a_client_that_vanishes_leaves_its_worker_free(pool: Pool, sockets: RawSockets) -> None:
    leaving = RawStreamClient(pool.endpoint)
    start(leaving, 10**9)
    assert leaving.receive()[0] == PART
    leaving.close()
    client = RawClient(sockets, pool.endpoint)
    while client.ask([CALL, 2, "pronghorn.stats"])[2]["workers"][0]["held"]:
        pass  # the broker hears of it in its own time
    assert client.ask([CALL, 3, "add", [1, 2]]) == [RESULT, 3, 3, 0]


def test_req_and_json_get_a_list(pool: Pool, sockets: RawSockets) -> None:
    socket = sockets.req(pool.endpoint)
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "count", "params": [3]}).encode())
    assert json.loads(socket.recv())["result"] == [0, 1, 2]
    socket.send(encode([CALL, 1, "count", [3]]))
    assert RESULT in socket.recv()
    socket.send(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "count", "params": [10**6]}).encode()
    )
    error = json.loads(socket.recv())["error"]
    assert error["data"]["code"] == "NODE_ERROR"
    assert "more than 100000 parts to collect" in error["message"]
