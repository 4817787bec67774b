"""Checks of a broker in JSON-RPC.

Mirror: tests/client/conformance/test_broker.py.
"""

from typing import Any

import msgspec

from .findings import Check, Failure, Skip, expect, expect_equal, shown
from .peers import Broker, Peer


def rpc(id_: Any, method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    """Make a request."""
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params, **more}


def ask(peer: Peer, request: Any) -> Any:
    """Send a request, or bytes as they are, and take the reply; `None` if it is empty."""
    send(peer, request)
    return take(peer)


def send(peer: Peer, request: Any) -> None:
    """Send a request, or bytes as they are."""
    peer.send(request if isinstance(request, bytes) else msgspec.json.encode(request))


def take(peer: Peer) -> Any:
    """Take a reply; `None` if it is empty."""
    frames = peer.wire.receive()
    if frames == [b""]:
        return None
    try:
        return msgspec.json.decode(frames[0])
    except msgspec.DecodeError as error:
        raise Failure(f"{shown(frames)} is no JSON: {error}") from error


def expect_error(reply: Any, id_: Any, number: int, code: str) -> Any:
    """Fail unless a reply is that error; returns its data."""
    expect_equal(reply.get("id"), id_, "the id")
    error = reply.get("error")
    expect(isinstance(error, dict), f"{shown(reply)} is no error")
    expect_equal(error["code"], number, "the number of the error")
    expect_equal(error["data"]["code"], code, "the code of the error")
    return error["data"]


def _calls(broker: Broker) -> None:
    req = broker.req()
    for params in ({"a": 1, "b": 2}, [1, 2]):
        expect_equal(
            ask(req, rpc(1, "add", params)), {"jsonrpc": "2.0", "id": 1, "result": 3}, "the reply"
        )


def _ids(broker: Broker) -> None:
    req = broker.req()
    for id_ in (0, -5, "text", None):
        expect_equal(ask(req, rpc(id_, "pronghorn.ping"))["id"], id_, "the id")
    expect_error(ask(req, rpc(1.5, "pronghorn.ping")), None, -32600, "PROTOCOL_ERROR")


def _notifications(broker: Broker) -> None:
    quiet = {"jsonrpc": "2.0", "method": "pronghorn.ping"}
    expect_equal(ask(broker.req(), quiet), None, "the answer to a notification over REQ")
    expect_equal(ask(broker.req(), [quiet]), None, "the answer to a batch of notifications")
    dealer = broker.dealer()
    send(dealer, quiet)
    expect_equal(dealer.until_pong(), [], "the answer to a notification over DEALER")


def _batches(broker: Broker) -> None:
    batch = [rpc(number, "pronghorn.ping") for number in range(3)]
    quiet = {"jsonrpc": "2.0", "method": "pronghorn.ping"}
    replies = ask(broker.req(), [*batch, quiet, rpc("x", "conformance.none"), 7])
    expect(isinstance(replies, list), f"the reply to a batch is {shown(replies)}")
    ids = {str(reply["id"]) for reply in replies}
    expect_equal(ids, {"0", "1", "2", "x", "None"}, "the ids of the replies")
    expect_equal(len(replies), 5, "the number of replies")
    expect_error(ask(broker.req(), []), None, -32600, "PROTOCOL_ERROR")


def _errors(broker: Broker) -> None:
    req = broker.req()
    expect_error(ask(req, rpc(1, "conformance.none")), 1, -32601, "NOT_FOUND")
    expect_error(ask(req, b"{no json"), None, -32700, "PROTOCOL_ERROR")
    expect_error(ask(req, {"jsonrpc": "1.0", "id": 1, "method": "x"}), 1, -32600, "PROTOCOL_ERROR")


def _errors_of_nodes(broker: Broker) -> None:
    req = broker.req()
    data = expect_error(ask(req, rpc(1, "add", {"a": 1, "b": "2"})), 1, -32602, "INVALID_ARGUMENT")
    expect_equal(data.get("field"), "$.b", "the field")
    data = expect_error(ask(req, rpc(1, "divide", [1, 0])), 1, -32000, "NODE_ERROR")
    expect_equal(data.get("exception"), "ZeroDivisionError", "the exception")


def _deadlines(broker: Broker) -> None:
    reply = ask(broker.req(), rpc(1, "wait", timeout_ms=50))
    expect_error(reply, 1, -32001, "DEADLINE_EXCEEDED")


def _cancels(broker: Broker) -> None:
    dealer = broker.dealer()
    send(dealer, rpc(1, "wait"))
    send(dealer, rpc(2, "pronghorn.cancel", {"id": 1}))
    replies = {reply["id"]: reply for reply in (take(dealer), take(dealer))}
    expect_equal(sorted(replies), [1, 2], "the ids of the replies")
    expect_equal(replies[2].get("result"), True, "what cancelling has come to")
    expect_error(replies[1], 1, -32002, "CANCELLED")
    again = ask(dealer, rpc(3, "pronghorn.cancel", {"id": 1}))
    expect_equal(again.get("result"), False, "what cancelling what has ended comes to")


def _cancels_over_req(broker: Broker) -> None:
    req = broker.req(REQ_RELAXED=1, REQ_CORRELATE=1)
    send(req, rpc(1, "wait"))
    reply = ask(req, rpc(2, "pronghorn.cancel", {"id": 1}))
    expect_equal((reply["id"], reply.get("result")), (2, True), "id and result of the reply")


def _own_nodes(broker: Broker) -> None:
    req = broker.req()
    nodes = ask(req, rpc(1, "pronghorn.nodes"))["result"]
    for node in nodes:
        for name in ("name", "aliases", "kind", "signature", "doc", "params", "result", "streams"):
            expect(name in node, f"{node.get('name')} has no {name}")
    reply = ask(req, rpc(2, "pronghorn.stats"))
    if reply.get("error", {}).get("data", {}).get("code") == "PERMISSION_DENIED":
        raise Skip("the key may not read statistics, and this needs them")
    stats = reply["result"]
    for name in ("epoch", "pid", "counters", "refused", "turns", "nodes", "workers", "queued"):
        expect(name in stats, f"pronghorn.stats has no {name}")


CHECKS: tuple[Check[Broker], ...] = (
    Check("JSON: calls over REQ", 7, _calls, ("add",)),
    Check("JSON: ids", 7, _ids),
    Check("JSON: notifications", 7, _notifications),
    Check("JSON: batches", 7, _batches),
    Check("JSON: errors", 7, _errors),
    Check("JSON: errors of nodes", 7, _errors_of_nodes, ("add", "divide")),
    Check("JSON: deadlines", 7, _deadlines, ("wait",)),
    Check("JSON: cancelling", 7, _cancels, ("wait",)),
    Check("JSON: cancelling over REQ", 15, _cancels_over_req, ("wait",)),
    Check("JSON: nodes of Pronghorn's own", 8, _own_nodes),
)
