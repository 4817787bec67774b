"""Clients written from PROTOCOL.md alone, against a real pool: what is right, and what is wrong.

Over ZeroMQ and over streams, where both can do it; what is of streams only is in test_streams.py.
"""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.msgpack import Ext, encode
from pools import SMALL_LIMITS, served
from raw_client import (
    ACK,
    BUNDLE,
    CALL,
    CANCEL,
    ERROR,
    GOODBYE,
    HELLO,
    MAP_CHUNK,
    MAP_RESULT,
    PING,
    PONG,
    RESULT,
    WELCOME,
    RawClient,
    RawStreamClient,
)
from raw_sockets import WAIT_MS, RawSockets

from pronghorn.broker.wire.limits import KIB, MIB
from pronghorn.client import Client
from pronghorn.client.pool import Pool

ADD = b'{"jsonrpc":"2.0","id":1,"method":"add","params":{"a":1,"b":2}}'
CALL_ADD = encode([CALL, 1, "add", [1, 2]])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("raw")
    with served(folder, limits=SMALL_LIMITS, bind=["tcp://127.0.0.1:0"]) as pool:
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


@pytest.fixture
def dealer(pool: Pool, sockets: RawSockets) -> RawClient:
    """A client over ZeroMQ, for what only those can do."""
    return RawClient(sockets, pool.endpoint)


@pytest.fixture
def req(pool: Pool, sockets: RawSockets) -> Callable[[Any], Any]:
    """Ask over one REQ socket, in JSON."""
    socket = sockets.req(pool.endpoint)

    def ask(request: Any) -> Any:
        socket.send(request if isinstance(request, bytes) else json.dumps(request).encode())
        reply = socket.recv()
        return json.loads(reply) if reply else None

    return ask


def rpc(id_: Any, method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params, **more}


@contextmanager
def bystander(pool: Pool) -> Iterator[None]:
    """Have a client make calls meanwhile, none of which may fail or get a wrong result."""
    ended = threading.Event()
    results: list[bool | BaseException] = []

    def call() -> None:
        try:
            with Client(pool.endpoint) as client:
                while not ended.is_set():
                    results.append(client.call("add", a=len(results), b=1) == len(results) + 1)
                    begun.set()
        except BaseException as error:
            results.append(error)
            begun.set()

    begun = threading.Event()
    thread = threading.Thread(target=call)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert results
    assert all(result is True for result in results), results[-1]


@contextmanager
def counted(client: RawClient, **expected: int) -> Iterator[None]:
    """Check what the broker counts meanwhile, of those counters that no bystander moves."""
    before = client.counters()
    yield
    after = client.counters()
    moved = {
        name: after[name] - before[name]
        for name in ("refused", "malformed", "failed", "banned")
        if after[name] != before[name]
    }
    assert moved == expected


# --- REQ and JSON --------------------------------------------------------------------------------


def test_a_req_socket_and_a_line_of_json(pool: Pool, sockets: RawSockets) -> None:
    socket = sockets.req(pool.endpoint)
    socket.send(ADD)
    assert socket.recv() == b'{"jsonrpc":"2.0","id":1,"result":3}'


def test_the_same_over_tcp(pool: Pool, sockets: RawSockets) -> None:
    [endpoint] = [one for one in pool.endpoints if one.startswith("tcp://127.0.0.1:")]
    socket = sockets.req(endpoint)
    socket.send(ADD)
    assert json.loads(socket.recv())["result"] == 3


@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("add", [1, 2], 3),
        ("nodes.add", {"b": 1, "a": 1}, 2),
        ("echo", {"x": {"é": [1.5, None, True]}}, {"é": [1.5, None, True]}),
        ("echo_bytes", ["aGVsbG8="], "aGVsbG8="),
        ("size", ["aGVsbG8="], 5),
        ("echo", [10**30], 10**30),
    ],
)
def test_params_by_position_and_by_name(
    req: Callable[[Any], Any], method: str, params: Any, result: Any
) -> None:
    assert req(rpc("x", method, params)) == {"jsonrpc": "2.0", "id": "x", "result": result}


@pytest.mark.parametrize("id_", [0, -5, 10**25, "text", None])
def test_ids_come_back_as_they_were(req: Callable[[Any], Any], id_: Any) -> None:
    assert req(rpc(id_, "add", [1, 2])) == {"jsonrpc": "2.0", "id": id_, "result": 3}


def test_a_notification_over_req_gets_an_empty_reply(req: Callable[[Any], Any]) -> None:
    for method in ("add", "no_such", "pronghorn.ping", "pronghorn.stats"):
        assert req({"jsonrpc": "2.0", "method": method, "params": [1, 2]}) is None
    assert req(ADD)["result"] == 3


def test_a_notification_over_dealer_gets_nothing(client: RawClient) -> None:
    client.send(b'{"jsonrpc":"2.0","method":"add","params":[1,2]}')
    client.send(b'{"jsonrpc":"2.0","method":"no_such"}')
    assert client.nothing_more_comes()


def test_a_batch_gets_one_array(req: Callable[[Any], Any]) -> None:
    replies = req(
        [
            rpc(1, "add", [1, 2]),
            {"jsonrpc": "2.0", "method": "add", "params": [3, 4]},
            rpc(2, "no_such"),
            rpc("p", "pronghorn.ping"),
            {"id": 3},
            7,
        ]
    )
    by_id = {reply["id"]: reply for reply in replies if reply["id"] is not None}
    assert len(replies) == 5
    assert by_id[1]["result"] == 3
    assert by_id[2]["error"]["code"] == -32601
    assert by_id["p"]["result"].keys() == {"epoch"}
    assert by_id[3]["error"]["code"] == -32600


def test_a_batch_of_notifications_gets_an_empty_reply(req: Callable[[Any], Any]) -> None:
    quiet = {"jsonrpc": "2.0", "method": "add", "params": [1, 2]}
    assert req([quiet, quiet]) is None


def test_a_batch_larger_than_a_strangers_grant_is_served_up_to_it(
    req: Callable[[Any], Any],
) -> None:
    replies = req([rpc(id_, "add", [id_, 0]) for id_ in range(20)])
    served_ones = {reply["id"]: reply["result"] for reply in replies if "result" in reply}
    assert served_ones == {id_: id_ for id_ in range(16)}
    for reply in replies:
        if "error" in reply:
            assert reply["error"]["code"] == -32003
            assert reply["error"]["data"]["retryable"] is True


def test_a_batch_whose_results_are_too_large_together(req: Callable[[Any], Any]) -> None:
    replies = req([rpc(id_, "zeros", [60 * KIB]) for id_ in (1, 2)])
    assert sorted(reply["id"] for reply in replies) == [1, 2]
    [refused] = [reply["error"] for reply in replies if "error" in reply]
    assert refused["data"] == {
        "code": "RESOURCE_EXHAUSTED",
        "outcome": "executed",
        "limit": 128 * KIB,
    }


def test_our_own_methods(req: Callable[[Any], Any]) -> None:
    epoch = req(rpc(1, "pronghorn.ping"))["result"]["epoch"]
    status = req(rpc(2, "pronghorn.stats"))["result"]
    assert status["epoch"] == epoch
    assert status["counters"]["accepted"] > 0
    nodes = {node["name"]: node for node in req(rpc(3, "pronghorn.nodes"))["result"]}
    assert nodes["nodes.add"] == {
        "name": "nodes.add",
        "aliases": ["add"],
        "kind": "inline",
        "signature": "add(a: int, b: int) -> int",
        "doc": "Sum of two integers.",
        "params": {
            "title": "add",
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "result": {"type": "integer"},
        "streams": False,
    }
    assert req(rpc(4, "pronghorn.cancel", {"id": 99}))["result"] is False


def test_an_option_is_an_extra_member(req: Callable[[Any], Any]) -> None:
    error = req(rpc(1, "wait_for_ever", timeout_ms=20))["error"]
    assert error["code"] == -32001
    assert error["data"]["code"] == "DEADLINE_EXCEEDED"
    assert req(rpc(2, "add", [1, 2], timeout_ms=-1))["error"]["code"] == -32602
    error = req(rpc(3, "add", [1, 2], durability="sync"))["error"]
    assert (error["code"], error["data"]["code"]) == (-32007, "JOURNAL_ERROR")  # it has none


def test_json_cancels_what_json_has_open(client: RawClient) -> None:
    client.send(json.dumps(rpc("long", "wait_for_ever")).encode())
    client.send(json.dumps(rpc("stop", "pronghorn.cancel", {"id": "long"})).encode())
    replies = [json.loads(client.receive_frame()) for _ in range(2)]
    by_id = {reply["id"]: reply for reply in replies}
    assert by_id["stop"]["result"] is True
    assert by_id["long"]["error"]["code"] == -32002


# --- REQ and msgpack -----------------------------------------------------------------------------


def test_req_speaks_msgpack(pool: Pool, sockets: RawSockets) -> None:
    socket = sockets.req(pool.endpoint)
    socket.send(CALL_ADD)
    assert socket.recv() == encode([RESULT, 1, 3, 0])
    socket.send(encode([CALL, None, "add", [1, 2]]))
    assert socket.recv() == b""
    socket.send(encode([PING, None]))
    assert socket.recv().startswith(b"\x93\x36\xc0")


def test_req_that_gave_up_waiting_goes_on(pool: Pool, sockets: RawSockets) -> None:
    socket = sockets.req(pool.endpoint, REQ_CORRELATE=1, REQ_RELAXED=1)
    socket.send(json.dumps(rpc("lost", "wait_for_ever")).encode())
    socket.send(ADD)
    assert json.loads(socket.recv())["result"] == 3
    socket.send(json.dumps(rpc("stop", "pronghorn.cancel", {"id": "lost"})).encode())
    assert json.loads(socket.recv()) == {"jsonrpc": "2.0", "id": "stop", "result": True}
    socket.send(ADD)
    assert json.loads(socket.recv())["result"] == 3


def test_through_two_proxies(pool: Pool, tmp_path: Path, sockets: RawSockets) -> None:
    context: Any = zmq.Context()
    endpoints = [pool.endpoint, f"ipc://{tmp_path}/1", f"ipc://{tmp_path}/2"]
    threads = []
    for behind, before in pairwise(endpoints):
        router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        router.bind(before)
        dealer.connect(behind)
        threads.append(threading.Thread(target=_proxy, args=(router, dealer)))
        threads[-1].start()
    try:
        req = sockets.req(endpoints[-1], REQ_CORRELATE=1)
        req.send(ADD)
        assert json.loads(req.recv())["result"] == 3
        req.send(b"garbage")
        assert req.recv().startswith(b"\x95\x35\xc0")
        dealer_client = RawClient(sockets, endpoints[-1])
        dealer_client.socket.send_multipart([b"", CALL_ADD, encode([CALL, 2, "add", [2, 2]])])
        replies = [dealer_client.socket.recv_multipart() for _ in range(2)]
        assert sorted(replies) == [
            [b"", encode([RESULT, 1, 3, 0])],
            [b"", encode([RESULT, 2, 4, 0])],
        ]
    finally:
        context.term()
        for thread in threads:
            thread.join()


def _proxy(router: Any, dealer: Any) -> None:
    try:
        zmq.proxy(router, dealer)
    except zmq.ContextTerminated:
        router.close(linger=0)
        dealer.close(linger=0)


# --- DEALER and msgpack --------------------------------------------------------------------------


def test_a_dealer_and_a_line_of_msgpack(client: RawClient) -> None:
    assert client.ask(CALL_ADD) == [RESULT, 1, 3, 0]
    assert client.ask([CALL, "x", "nodes.add", {"b": 2, "a": -2}]) == [RESULT, "x", 0, 0]
    assert client.ask([CALL, 2**64 - 1, "echo", [None]]) == [RESULT, 2**64 - 1, None, 0]
    assert client.ask([CALL, 3, "pronghorn.nodes"])[2][0]["name"] == "nodes.add"


def test_an_envelope_is_given_back(dealer: RawClient) -> None:
    dealer.socket.send_multipart([b"any", b"thing", b"", CALL_ADD])
    assert dealer.socket.recv_multipart() == [
        b"any",
        b"thing",
        b"",
        encode([RESULT, 1, 3, 0]),
    ]


def test_several_requests_in_a_message(client: RawClient) -> None:
    client.send(
        *[[CALL, id_, "add", [id_, 1]] for id_ in range(10)], ADD.replace(b'"id":1', b'"id":"j"')
    )
    replies = [client.receive_frame() for _ in range(11)]
    assert b'{"jsonrpc":"2.0","id":"j","result":3}' in replies
    for id_ in range(10):
        assert encode([RESULT, id_, id_ + 1, 0]) in replies


def test_bundles_both_ways(client: RawClient) -> None:
    client.hello()
    requests = [[CALL, id_, "add", [id_, 1]] for id_ in range(30)]
    client.send([BUNDLE, requests], [BUNDLE, [[PING, "p"]]])
    replies = [client.receive() for _ in range(31)]
    assert sorted(reply[1:3] for reply in replies if reply[0] == RESULT) == [
        [id_, id_ + 1] for id_ in range(30)
    ]
    assert [reply[1] for reply in replies if reply[0] == PONG] == ["p"]


def test_strangers_get_no_bundles(client: RawClient) -> None:
    client.send([BUNDLE, [[CALL, id_, "add", [id_, 1]] for id_ in range(10)]])
    for _ in range(10):
        assert client.receive_frame()[:2] == b"\x94\x31"


def test_buffers_both_ways(client: RawClient) -> None:
    first = encode([CALL, 9, "size", [Ext(1, b"\x00")], {"buffers": 1}])
    assert client.ask(first, b"hello") == [RESULT, 9, 5, 0]
    client.send([CALL, 10, "echo_bytes", {"x": Ext(1, b"\x01")}, {"buffers": 2}], b"a", b"b")
    assert client.receive() == [RESULT, 10, b"b", 0]
    client.send([CALL, 11, "zeros", [100 * KIB]])
    (kind, id_, value, count), [buffer] = client.receive_with_buffers()
    assert (kind, id_, count) == (RESULT, 11, 1)
    assert (value.code, bytes(value.data)) == (1, b"\x00")
    assert buffer == bytes(100 * KIB)


def test_buffers_over_an_envelope(dealer: RawClient) -> None:
    dealer.socket.send_multipart([b"", encode([CALL, 11, "zeros", [100 * KIB]])])
    empty, frame, buffer = dealer.socket.recv_multipart()
    assert (empty, frame[:3], len(buffer)) == (b"", b"\x94\x31\x0b", 100 * KIB)


def test_a_chunk_is_run_item_by_item(client: RawClient) -> None:
    kind, id_, values, failures, run_ms = client.ask(
        [MAP_CHUNK, 1, "divide", [[6, 3], {"a": 1, "b": 0}, [1], [9, 3]]]
    )
    assert (kind, id_, values) == (MAP_RESULT, 1, [2.0, None, None, 3.0])
    assert run_ms >= 0
    by_zero, missing = failures
    assert by_zero[:3] == [1, "NODE_ERROR", "division by zero"]
    assert by_zero[3]["exception"] == "ZeroDivisionError"
    assert missing[:3] == [
        2,
        "INVALID_ARGUMENT",
        "nodes.divide: missing required parameter `b`",
    ] or (missing[0] == 2 and missing[1] == "INVALID_ARGUMENT")
    assert client.ask([MAP_CHUNK, 2, "add", []])[:4] == [MAP_RESULT, 2, [], None]


TYPES = {
    "day": "2024-01-02",
    "clock": "03:04:05",
    "span": "P1DT2S",
    "who": "00000000-0000-0000-0000-000000000001",
    "price": "1.50",
    "tags": [7, 7],
    "ratio": 1,
    "number": 2**64 - 1,
}


def test_values_are_as_the_table_says(client: RawClient, req: Callable[[Any], Any]) -> None:
    text = "2024-01-02T03:04:05Z"
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    plain = ["2024-01-02", "03:04:05", "P1DT2S", TYPES["who"], "1.50", [7], 1.0, 2**64 - 1]
    for when in (moment, text):  # a timestamp or a string, in
        reply = client.ask([CALL, 1, "echo_types", {"when": when, **TYPES}])
        assert reply == [RESULT, 1, [moment, *plain], 0]
    params = {"when": text, **TYPES, "number": 10**30}
    assert req(rpc(1, "echo_types", params))["result"] == [text, *plain[:-1], 10**30]


def test_a_time_without_a_zone_is_text_both_ways(client: RawClient) -> None:
    local = "2024-01-02T03:04:05"
    reply = client.ask([CALL, 1, "echo_types", {"when": local, **TYPES}])
    assert reply[2][0] == local


@pytest.mark.parametrize(
    ("name", "value"), [("number", 1.0), ("number", "1"), ("number", True), ("ratio", "1")]
)
def test_nothing_is_converted_that_may_be_a_mistake(
    client: RawClient, name: str, value: Any
) -> None:
    params = {"when": "2024-01-02T03:04:05Z", **TYPES, name: value}
    reply = client.ask([CALL, 1, "echo_types", params])
    assert (reply[2], reply[4]["field"]) == ("INVALID_ARGUMENT", f"$.{name}")


def test_calls_without_an_id_are_not_answered(client: RawClient) -> None:
    client.send([CALL, None, "add", [1, 2]])
    client.send([CALL, None, "no_such"])
    client.send([CALL, None, "pronghorn.stats"])
    client.send([MAP_CHUNK, None, "add", [[1, 2]]])
    assert client.nothing_more_comes()


def test_elements_and_options_that_are_new_are_ignored(client: RawClient) -> None:
    assert client.ask([CALL, 1, "add", [1, 2], {"invented": 1}, "later"]) == [RESULT, 1, 3, 0]


@pytest.mark.parametrize("depth", [200])
def test_nesting_that_is_always_served(
    client: RawClient, req: Callable[[Any], Any], depth: int
) -> None:
    nested: Any = None
    for _ in range(depth):
        nested = [nested]
    assert client.ask([CALL, 1, "echo", {"x": nested}]) == [RESULT, 1, nested, 0]
    assert req(rpc(1, "echo", {"x": nested}))["result"] == nested


# --- sessions, cancelling, deadlines, flow control -----------------------------------------------


def test_hello_is_answered_with_all_one_has_to_know(client: RawClient, pool: Pool) -> None:
    info = client.hello()
    assert info["version"] == 1
    assert info["server"].startswith("pronghorn/")
    assert info["limits"] == {
        "request_bytes": 256 * KIB,
        "result_bytes": 128 * KIB,
        "buffers": 4,
        "frames": 40,
        "grant_requests": 64,
        "grant_bytes": 512 * KIB,
        "stranger_requests": 16,
        "grant_parts": 16384,
        "grant_part_bytes": 256 * MIB,
    }
    assert client.ask([PING, 1]) == [PONG, 1, info["epoch"]]
    assert client.hello()["epoch"] == info["epoch"]


def test_a_probe_is_answered_with_a_welcome(pool: Pool, sockets: RawSockets) -> None:
    client = RawClient(sockets, pool.endpoint, PROBE_ROUTER=1)
    assert client.receive()[:2] == [WELCOME, None]
    assert client.ask(b"")[:2] == [WELCOME, None]


def test_an_id_can_not_be_open_twice(client: RawClient) -> None:
    client.send([CALL, 1, "wait_for_ever"])
    with counted(client, refused=1):
        refused = client.ask([CALL, 1, "add", [1, 2]])
    assert refused[:3] == [ERROR, 1, "INVALID_ARGUMENT"]
    assert "open already" in refused[3]
    assert client.ask([CALL, "1", "add", [1, 2]]) == [RESULT, "1", 3, 0]
    assert client.ask([CANCEL, 1])[:3] == [ERROR, 1, "CANCELLED"]
    assert client.ask([CALL, 1, "add", [1, 2]]) == [RESULT, 1, 3, 0]


def test_an_id_in_json_can_not_be_open_twice(client: RawClient) -> None:
    client.send(json.dumps(rpc(1, "wait_for_ever")).encode())
    client.send(ADD)
    refused = json.loads(client.receive_frame())
    assert (refused["id"], refused["error"]["code"]) == (1, -32602)
    assert client.ask([CALL, 1, "add", [1, 2]])[2] == "INVALID_ARGUMENT"  # one space for both
    client.send([CANCEL, 1])
    assert json.loads(client.receive_frame())["error"]["data"]["code"] == "CANCELLED"


def test_a_cancelled_call_gets_its_one_reply(client: RawClient) -> None:
    client.send([CALL, 1, "wait_for_ever"], [CANCEL, 1], [CANCEL, 1], [CANCEL, "never was"])
    kind, id_, code, _, details = client.receive()
    assert (kind, id_, code) == (ERROR, 1, "CANCELLED")
    assert details["outcome"] in ("not_started", "maybe_executed")
    assert details["node"] == "nodes.wait_for_ever"
    assert client.nothing_more_comes()


def test_goodbye_ends_what_is_open_without_a_word(client: RawClient) -> None:
    with counted(client, failed=2):
        client.send([CALL, 1, "wait_for_ever"], [HELLO, 0], [CALL, 2, "wait_for_ever"], [GOODBYE])
        assert client.receive()[0] == WELCOME
        assert client.nothing_more_comes()
    assert client.ask([CALL, 1, "add", [1, 2]]) == [RESULT, 1, 3, 0]


def test_goodbye_ends_a_batch_with_what_there_is(client: RawClient) -> None:
    batch = [rpc("long", "wait_for_ever"), rpc("ping", "pronghorn.ping")]
    client.send(json.dumps(batch).encode(), [GOODBYE])
    [reply] = json.loads(client.receive_frame())
    assert reply["id"] == "ping"
    assert client.nothing_more_comes()


def test_a_deadline_ends_a_call(client: RawClient) -> None:
    kind, id_, code, _, details = client.ask([CALL, 1, "wait_for_ever", None, {"timeout_ms": 20}])
    assert (kind, id_, code) == (ERROR, 1, "DEADLINE_EXCEEDED")
    assert details["outcome"] == "maybe_executed"
    assert client.ask([CALL, 2, "add", [1, 2], {"timeout_ms": 10_000.5}]) == [RESULT, 2, 3, 0]


def test_beyond_a_strangers_grant_requests_are_refused(client: RawClient) -> None:
    with counted(client, refused=1, failed=16):
        client.send(*[[CALL, id_, "wait_for_ever"] for id_ in range(17)])
        kind, id_, code, message, details = client.receive()
        assert (kind, id_, code) == (ERROR, 16, "RESOURCE_EXHAUSTED")
        assert message == "16 requests of this client are open, its grant"
        assert details == {
            "outcome": "not_started",
            "retryable": True,
            "retry_after_ms": 50.0,
            "limit": 16,
        }
        client.send(*[[CANCEL, id_] for id_ in range(16)])
        assert sorted(client.receive()[1] for _ in range(16)) == list(range(16))


def test_bytes_of_open_requests_are_granted_too(client: RawClient) -> None:
    chunk = [MAP_CHUNK, 1, "wait_for_ever", [None] * 1, {"trace": "x" * 250 * KIB}]
    client.send(chunk)
    chunk[1] = 2
    client.send(chunk)
    chunk[1] = 3
    kind, id_, code, _, details = client.ask(chunk)
    assert (kind, id_, code, details["limit"]) == (ERROR, 3, "RESOURCE_EXHAUSTED", 512 * KIB)
    client.send([CANCEL, 1], [CANCEL, 2])
    assert sorted(client.receive()[1] for _ in range(2)) == [1, 2]


def test_replies_that_are_not_acknowledged_use_up_the_grant(client: RawClient) -> None:
    client.hello()
    for id_ in range(63):
        assert client.ask([CALL, id_, "add", [1, 2]]) == [RESULT, id_, 3, 0]
    # A reply that is an error counts as well, whatever it was for.
    assert client.ask([CALL, "e", "no_such"])[2] == "NOT_FOUND"
    assert client.ask([CALL, "over", "add", [1, 2]])[1:3] == ["over", "RESOURCE_EXHAUSTED"]
    client.send([ACK, 65])
    assert client.ask([CALL, "next", "add", [1, 2]]) == [RESULT, "next", 3, 0]


def test_a_client_that_acknowledges_is_served_for_ever(client: RawClient) -> None:
    client.hello()
    for id_ in range(500):
        reply = client.ask([CALL, id_, "no_such" if id_ % 7 == 0 else "add", [1, 2]])
        assert reply[0] == (ERROR if id_ % 7 == 0 else RESULT)
        assert reply[2] in ("NOT_FOUND", 3)
        if id_ % 16 == 15:
            client.send([ACK, id_ + 1])


@pytest.mark.parametrize("wrong", [[ACK, 1000], [ACK, -1]])
def test_an_ack_that_can_not_be_true_is_ignored_and_counted(
    client: RawClient, wrong: list[int], pool: Pool, sockets: RawSockets
) -> None:
    other = RawClient(sockets, pool.endpoint)
    client.hello()
    with counted(other, malformed=1):
        client.send(wrong)
        assert client.nothing_more_comes()


def test_an_ack_of_a_stranger_is_ignored(client: RawClient) -> None:
    with counted(client):
        client.send([ACK, 5])
        assert client.nothing_more_comes()


# --- bad input -----------------------------------------------------------------------------------

NESTED = b"\x94\x23\x01\xa4echo" + b"\x91" * 100_000 + b"\xc0"
OVER_THE_LIMIT = encode([CALL, 1, "size", [bytes(256 * KIB)]])

# frames, [id, code, a part of the message, the limit it names], what is counted
Bad = tuple[list[bytes], list[Any], str]

BAD: dict[str, Bad] = {
    "garbage": ([b"garbage"], [None, "PROTOCOL_ERROR", "not a request", None], "malformed"),
    "zeros": ([bytes(1000)], [None, "PROTOCOL_ERROR", "not a request", None], "malformed"),
    "a truncated frame": ([CALL_ADD[:-1]], [1, "PROTOCOL_ERROR", "truncated", None], "malformed"),
    "bytes behind the end": (
        [CALL_ADD + b"x"],
        [1, "PROTOCOL_ERROR", "trailing", None],
        "malformed",
    ),
    "nested too deeply": ([NESTED], [1, "PROTOCOL_ERROR", "nested too deeply", None], "malformed"),
    "a frame over the limit": (
        [OVER_THE_LIMIT],
        [1, "INVALID_ARGUMENT", f"the limit is {256 * KIB}", 256 * KIB],
        "malformed",
    ),
    "buffers over the limit": (
        [encode([CALL, 1, "size", [Ext(1, b"\0")], {"buffers": 1}]), bytes(256 * KIB)],
        [1, "INVALID_ARGUMENT", f"the limit is {256 * KIB}", 256 * KIB],
        "malformed",
    ),
    "an unknown version": (
        [encode([67, 1, "add", [1, 2]])],
        [1, "UNIMPLEMENTED", "unknown protocol version 2", None],
        "malformed",
    ),
    "an unknown kind": (
        [encode([60, 1, "add", [1, 2]])],
        [1, "UNIMPLEMENTED", "unknown message kind 60", None],
        "malformed",
    ),
    "a kind of the broker": (
        [encode([RESULT, 1, 3, 0])],
        [1, "UNIMPLEMENTED", "unknown message kind 49", None],
        "malformed",
    ),
    "a reserved kind": (
        [encode([42, 1, "topic"])],
        [1, "UNIMPLEMENTED", "'subscribe'", None],
        "refused",
    ),
    "a run of an unknown node": (
        [encode([41, 1, "order"])],
        [1, "NOT_FOUND", "no node named 'order'", None],
        "refused",
    ),
    "a reserved option": (
        [encode([CALL, 1, "add", [1, 2], {"value_ref": "x"}])],
        [1, "UNIMPLEMENTED", "value_ref", None],
        "refused",
    ),
    "a header field of a wrong type": (
        [encode([CALL, 1, 5])],
        [1, "PROTOCOL_ERROR", "`$[2]`", None],
        "malformed",
    ),
    "an id of a wrong type": (
        [encode([CALL, 1.5, "add"])],
        [None, "PROTOCOL_ERROR", "`$[1]`", None],
        "malformed",
    ),
    "too many buffers": (
        [encode([CALL, 1, "size", None, {"buffers": 5}]), *[b"x"] * 5],
        [1, "PROTOCOL_ERROR", "0 to 4", 4],
        "malformed",
    ),
    "an empty buffer": (
        [encode([CALL, 1, "size", None, {"buffers": 1}]), b""],
        [1, "PROTOCOL_ERROR", "is empty", None],
        "malformed",
    ),
    "buffers of a chunk": (
        [encode([MAP_CHUNK, 1, "size", [], {"buffers": 1}]), b"x"],
        [1, "PROTOCOL_ERROR", "only calls and runs have any", None],
        "malformed",
    ),
    "a bundle with a bundle": (
        [encode([BUNDLE, [[BUNDLE, []]]])],
        [None, "PROTOCOL_ERROR", "holds no bundles", None],
        "malformed",
    ),
    "a bundle of too many": (
        [encode([BUNDLE, [[PING, 1]] * 41])],
        [None, "PROTOCOL_ERROR", "at most 40", 40],
        "malformed",
    ),
    "an id too long": (
        [encode([CALL, "x" * 129, "add"])],
        ["x" * 129, "INVALID_ARGUMENT", "at most 128 characters", None],
        "refused",
    ),
    "a timeout of nothing": (
        [encode([CALL, 1, "add", [1, 2], {"timeout_ms": 0}])],
        [1, "INVALID_ARGUMENT", "timeout_ms is 0", None],
        "refused",
    ),
    "a timeout of years": (
        [encode([CALL, 1, "add", [1, 2], {"timeout_ms": 1e12}])],
        [1, "INVALID_ARGUMENT", "at most 2592000000", None],
        "refused",
    ),
    "an unknown node": (
        [encode([CALL, 1, "ad", [1, 2]])],
        [1, "NOT_FOUND", "no node named 'ad'; did you mean 'add'?", None],
        "refused",
    ),
    "a node's name too long": (
        [encode([CALL, 1, "x" * 100_000])],
        [1, "NOT_FOUND", "the limit is 255 bytes", 255],
        "refused",
    ),
    "a missing parameter": (
        [encode([CALL, 1, "add", {"a": 1}])],
        [1, "INVALID_ARGUMENT", "nodes.add: missing required parameter `b`", None],
        "failed",
    ),
    "an extra parameter": (
        [encode([CALL, 1, "add", {"a": 1, "b": 2, "c": 3}])],
        [1, "INVALID_ARGUMENT", "nodes.add: unknown parameter `c`", None],
        "failed",
    ),
    "an ill-typed parameter": (
        [encode([CALL, 1, "add", {"a": 1, "b": "2"}])],
        [1, "INVALID_ARGUMENT", "nodes.add: Expected `int`, got `str` - at `$.b`", None],
        "failed",
    ),
    "params of a wrong form": (
        [encode([CALL, 1, "add", 5])],
        [1, "INVALID_ARGUMENT", "by name", None],
        "failed",
    ),
    "a buffer that did not come": (
        [encode([CALL, 1, "echo", [Ext(1, b"\0")]])],
        [1, "INVALID_ARGUMENT", "there is no buffer 0", None],
        "failed",
    ),
    "an unknown extension": (
        [encode([CALL, 1, "echo", [Ext(99, b"\0")]])],
        [1, "INVALID_ARGUMENT", "unknown extension type 99", None],
        "failed",
    ),
    "params that are damaged": (
        [b"\x94\x23\x01\xa4echo\x91\xa1\xff"],
        [1, "INVALID_ARGUMENT", "can't be decoded", None],
        "failed",
    ),
    "a result that can't be encoded": (
        [encode([CALL, 1, "give_object"])],
        [1, "NODE_ERROR", "$.inner[0]", None],
        "failed",
    ),
    "a result over the limit": (
        [encode([CALL, 1, "zeros", [128 * KIB + 1]])],
        [1, "NODE_ERROR", f"the limit is {128 * KIB}", 128 * KIB],
        "failed",
    ),
    "an exception": (
        [encode([CALL, 1, "divide", [1, 0]])],
        [1, "NODE_ERROR", "division by zero", None],
        "failed",
    ),
}


# What is wrong with a message as a whole: a stream has none.
BAD_MESSAGES: dict[str, Bad] = {
    "too many frames": (
        [CALL_ADD] * 41,
        [1, "PROTOCOL_ERROR", "a message has at most 40 frames", 40],
        "malformed",
    ),
    "very many frames": (
        [CALL_ADD] * 5000,
        [1, "PROTOCOL_ERROR", "a message has at most 40 frames", 40],
        "malformed",
    ),
    "too few buffers": (
        [encode([CALL, 1, "size", None, {"buffers": 2}]), b"one"],
        [1, "PROTOCOL_ERROR", "has 2 buffers, 1 frames follow", None],
        "malformed",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_gets_one_clear_error(pool: Pool, client: RawClient, case: Bad) -> None:
    check_bad_input(pool, client, case)


@pytest.mark.parametrize("case", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_a_bad_message_gets_one_clear_error(pool: Pool, dealer: RawClient, case: Bad) -> None:
    check_bad_input(pool, dealer, case)


def check_bad_input(pool: Pool, client: RawClient, case: Bad) -> None:
    frames, (id_, code, part, limit), counter = case
    with bystander(pool), counted(client, **{counter: 1}):
        reply = client.ask(*frames)
        assert reply[:3] == [ERROR, id_, code]
        assert part in reply[3]
        assert reply[4]["outcome"] == ("executed" if code == "NODE_ERROR" else "not_started")
        assert reply[4].get("limit") == limit
        assert client.nothing_more_comes()
        assert client.ask(CALL_ADD) == [RESULT, 1, 3, 0]


def test_bad_input_in_an_envelope_is_answered_in_it(dealer: RawClient) -> None:
    for frames in ([b"garbage"], [b""], [CALL_ADD[:-1]], [CALL_ADD] * 40, [encode([BUNDLE, []])]):
        dealer.socket.send_multipart([b"hop", b"", *frames])
        *envelope, frame = dealer.socket.recv_multipart()
        assert (envelope, frame[:2]) == ([b"hop", b""], b"\x95\x35")
    dealer.socket.send_multipart([b"hop", b""])
    assert dealer.socket.recv_multipart()[:2] == [b"hop", b""]
    assert dealer.nothing_more_comes()


def test_bad_requests_beside_good_ones(pool: Pool, client: RawClient) -> None:
    with bystander(pool), counted(client, malformed=4, refused=1):
        client.send(
            b"garbage",
            [CALL, 1, "add", [1, 1]],
            [CALL, 2, "no_such"],
            CALL_ADD[:-1].replace(b"\x01", b"\x03", 1),
            [CALL, 4, "size", None, {"buffers": 9}],
            *[b"x"] * 9,
            [BUNDLE, [[CALL, 5, "add", [5, 5]], 7, [CALL, 6, "add", [6, 6]]]],
        )
        replies = sorted((client.receive() for _ in range(8)), key=lambda reply: str(reply[1]))
    assert [reply[:3] for reply in replies] == [
        [RESULT, 1, 2],
        [ERROR, 2, "NOT_FOUND"],
        [ERROR, 3, "PROTOCOL_ERROR"],
        [ERROR, 4, "PROTOCOL_ERROR"],
        [RESULT, 5, 10],
        [RESULT, 6, 12],
        [ERROR, None, "PROTOCOL_ERROR"],
        [ERROR, None, "PROTOCOL_ERROR"],
    ]
    assert client.nothing_more_comes()


@pytest.mark.parametrize(
    ("frame", "code", "id_"),
    [
        (b"{", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"add"', -32700, None),
        (b"[1,", -32700, None),
        (b"[" * 100_000, -32700, None),
        (b"[]", -32600, None),
        (b"[" + b"1," * 1000 + b"1]", -32600, None),
        (b'{"id":5}', -32600, 5),
        (b'{"jsonrpc":"2.0","id":6,"method":7}', -32600, 6),
        (b'{"jsonrpc":"2.0","id":7,"method":"no_such"}', -32601, 7),
        (b'{"jsonrpc":"2.0","id":8,"method":"add","params":{"a":1}}', -32602, 8),
        (b'{"jsonrpc":"2.0","id":8,"method":"add","params":[1,"2"]}', -32602, 8),
        (b'{"jsonrpc":"2.0","id":8,"method":"size","params":["no base64!"]}', -32602, 8),
        (b'{"jsonrpc":"2.0","id":9,"method":"divide","params":[1,0]}', -32000, 9),
        (b'{"jsonrpc":"2.0","id":9,"method":"give_object"}', -32000, 9),
        (b'{"jsonrpc":"2.0","id":3,"method":"size","params":["%s"]}' % (b"A" * 262144), -32602, 3),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_bad_json_gets_one_clear_error(
    pool: Pool, req: Callable[[Any], Any], frame: bytes, code: int, id_: int | None
) -> None:
    with bystander(pool):
        reply = req(frame)
        assert reply.keys() == {"jsonrpc", "id", "error"}
        assert (reply["id"], reply["error"]["code"]) == (id_, code)
        assert reply["error"]["message"]
        assert reply["error"]["data"]["outcome"] == (
            "executed" if code == -32000 else "not_started"
        )
        assert req(ADD)["result"] == 3


def test_an_exception_comes_with_type_message_and_traceback(client: RawClient) -> None:
    details = client.ask([CALL, 1, "divide", [1, 0]])[4]
    assert details["exception"] == "ZeroDivisionError"
    assert details["node"] == "nodes.divide"
    assert "return a / b" in details["traceback"]
    assert "pronghorn" not in details["traceback"].replace("/pronghorn", "")


def test_the_field_at_fault_is_named(client: RawClient) -> None:
    details = client.ask([CALL, 1, "add", [1, "2"]])[4]
    assert details == {"outcome": "not_started", "node": "nodes.add", "field": "$[1]"}


@pytest.mark.slow
def test_a_lost_worker_fails_its_own_call_alone(pool: Pool, client: RawClient) -> None:
    with bystander(pool):
        kind, id_, code, _, details = client.ask([CALL, 1, "end_worker", [3]])
    assert (kind, id_, code) == (ERROR, 1, "WORKER_LOST")
    assert details["outcome"] == "maybe_executed"
    assert details["cause"] == "exit status 3"


def test_a_frame_beyond_all_bounds_ends_its_connection_alone(
    pool: Pool, sockets: RawSockets
) -> None:
    socket = sockets.dealer(pool.endpoint)
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    with bystander(pool):
        socket.send(bytes(4 * 256 * KIB + 1))
        assert monitor.poll(10_000)
    socket.disable_monitor()
    monitor.close(linger=0)


@pytest.mark.slow
def test_who_does_not_read_is_ignored_until_its_next_probe(
    pool: Pool, client: RawClient, sockets: RawSockets
) -> None:
    idle = sockets.dealer(pool.endpoint, RCVHWM=1, SNDHWM=0, RCVTIMEO=50)
    many = encode([BUNDLE, [[PING, "x" * 10_000]] * 20])
    banned = client.counters()["banned"]
    with bystander(pool):
        while client.counters()["banned"] == banned:
            idle.send(many)
    accepted = client.counters()["accepted"]
    idle.send(CALL_ADD)
    probe_until_welcome(idle)
    assert client.counters()["accepted"] == accepted
    idle.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    idle.send(CALL_ADD)
    while is_welcome(frame := idle.recv()):  # of earlier probes
        pass
    assert frame == encode([RESULT, 1, 3, 0])


def probe_until_welcome(socket: Any) -> None:
    """Make room for a welcome by reading, then ask for it, until it comes."""
    while True:
        socket.send(b"")
        with suppress(zmq.Again):
            while not is_welcome(socket.recv()):
                pass
            return


def is_welcome(frame: bytes) -> bool:
    return frame.startswith(encode([WELCOME, None, None])[:2])


# --- a broker that is lost -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_broker_is_told_by_a_welcome_without_an_id(
    tmp_path: Path, sockets: RawSockets
) -> None:
    with served(tmp_path, workers=1) as pool:
        client = RawClient(sockets, pool.endpoint, PROBE_ROUTER=1, IMMEDIATE=1)
        assert client.receive()[:2] == [WELCOME, None]
        before = client.hello()
        client.send([CALL, 1, "wait_for_ever"])
        assert client.nothing_more_comes()
        os.kill(before["pid"], signal.SIGKILL)
        kind, id_, after = client.receive()
        assert (kind, id_) == (WELCOME, None)
        assert after["epoch"] != before["epoch"]
        assert client.ask([CALL, 1, "add", [1, 2]]) == [RESULT, 1, 3, 0]


# --- what must not be open to the network --------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:0"])
def test_tcp_beyond_loopback_is_refused(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(Exception, match="insecure"), served(tmp_path, bind=[endpoint], workers=1):
        pass
