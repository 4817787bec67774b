"""Checks of a broker in msgpack: connections, envelopes, kinds, flow, deadlines, errors, limits.

Mirror: tests/client/conformance/test_broker.py.
"""

from time import monotonic
from typing import Any

from msgspec.msgpack import Ext, encode

from .findings import Check, Failure, Skip, expect, expect_equal, shown
from .peers import Broker, Peer, StreamWire

HELLO, GOODBYE, CALL, MAP_CHUNK, CANCEL, CREDIT, ACK, PING = range(33, 41)
BUNDLE = 43
WELCOME, RESULT, MAP_RESULT, PART, ERROR, PONG, TIMES = 48, 49, 50, 51, 53, 54, 57

_LIMITS = (
    "request_bytes",
    "result_bytes",
    "buffers",
    "frames",
    "grant_requests",
    "grant_bytes",
    "stranger_requests",
    "grant_parts",
    "grant_part_bytes",
)


def expect_result(reply: list[Any], id_: Any, value: Any) -> None:
    """Fail unless a reply is that result."""
    expect_equal(reply[:3], [RESULT, id_, value], "the reply")


def expect_error(reply: list[Any], id_: Any, code: str, outcome: str | None = None) -> Any:
    """Fail unless a reply is an error of that code; returns its details."""
    expect_equal(reply[:3], [ERROR, id_, code], "the reply")
    details = reply[4] if len(reply) > 4 else {}
    expect(isinstance(details, dict), f"the details of an error are {shown(details)}, no map")
    if outcome is not None:
        expect_equal(details.get("outcome"), outcome, "the outcome")
    return details


def _probe(broker: Broker) -> None:
    reply = broker.dealer(PROBE_ROUTER=1).reply()
    expect_equal(reply[:2], [WELCOME, None], "the answer to a probe")
    info = reply[2]
    for name, kind in (("version", int), ("epoch", str), ("server", str), ("pid", int)):
        expect(isinstance(info.get(name), kind), f"{name} of the welcome is {info.get(name)!r}")
    expect_equal(info["version"], 1, "the version")
    for name in _LIMITS:
        expect(isinstance(info["limits"].get(name), int), f"the limit {name} is missing")


def _hello(broker: Broker) -> None:
    peer = broker.dealer()
    expect_equal(peer.ask([HELLO, "h", "conformance"])[:2], [WELCOME, "h"], "the answer to hello")
    expect_equal(peer.ask([HELLO, 2])[:2], [WELCOME, 2], "the answer to a second hello")


def _ping(broker: Broker) -> None:
    peer = broker.dealer()
    kind, id_, epoch = peer.ask([PING, 7])[:3]
    expect_equal((kind, id_), (PONG, 7), "the answer to a ping")
    expect_equal(epoch, peer.ask(b"")[2]["epoch"], "the epoch of a pong")


def _envelopes(broker: Broker) -> None:
    for correlate in (0, 1):
        reply = broker.req(REQ_CORRELATE=correlate).ask([PING, 1])
        expect_equal(reply[:2], [PONG, 1], "the answer over REQ")
    peer = broker.dealer()
    for depth in (1, 2, 8):
        envelope = [b"hop%d" % hop for hop in range(depth - 1)] + [b""]
        peer.send(*envelope, [PING, depth])
        frames = peer.wire.receive()
        expect_equal(frames[:-1], envelope, "the envelope of the reply")
    peer.send(*[b"hop"] * 8, b"", [PING, 9])
    expect_error(peer.reply(), None, "PROTOCOL_ERROR")


def _many_in_a_message(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send(*([PING, number] for number in range(20)))
    found = sorted(peer.reply()[1] for _ in range(20))
    expect_equal(found, list(range(20)), "the ids of the replies")


def _bundles(broker: Broker) -> None:
    peer = broker.dealer()
    for header in (b"\xdc\x00\x03", b"\xdd\x00\x00\x00\x03", b"\x93"):
        inner = b"".join(encode([PING, number]) for number in range(3))
        peer.send(b"\x92\x2b" + header + inner)
        found = sorted(peer.reply()[1] for _ in range(3))
        expect_equal(found, [0, 1, 2], "the ids of the replies")


def _a_bundle_only_to_sessions(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([BUNDLE, [[CALL, number, "conformance.none"] for number in range(50)]])
    for _ in range(50):
        frame, *rest = peer.wire.receive()
        expect(frame[:2] != b"\x92\x38", "a stranger gets a bundle")
        expect(not rest, "a stranger gets several replies in a message")


def _ids(broker: Broker) -> None:
    peer = broker.dealer()
    for id_ in (0, -1, 2**64 - 1, -(2**63), "", "é" * 128):
        expect_error(peer.ask([CALL, id_, "conformance.none"]), id_, "NOT_FOUND", "not_started")
    too_long = "x" * 129
    expect_error(peer.ask([CALL, too_long, "pronghorn.nodes"]), too_long, "INVALID_ARGUMENT")
    peer.send([CALL, None, "conformance.none"])
    expect_equal(peer.until_pong(), [], "the answer to a call with id nil")


def _duplicate_ids(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([CALL, 1, "wait"], [CALL, "1", "wait"], [CALL, 1, "wait"])
    expect_error(peer.reply(), 1, "INVALID_ARGUMENT", "not_started")
    expect_equal(peer.until_pong(), [], "what else is answered")


def _newer_clients(broker: Broker) -> None:
    reply = broker.dealer().ask([CALL, 1, "add", [1, 2], {"invented": 1}, "more"])
    expect_result(reply, 1, 3)


def _calls(broker: Broker) -> None:
    peer = broker.dealer()
    for params in ({"a": 1, "b": 2}, [1, 2]):
        expect_result(peer.ask([CALL, 1, "add", params]), 1, 3)


def _no_such_node(broker: Broker) -> None:
    reply = broker.dealer().ask([CALL, 1, "conformance.none"])
    expect_error(reply, 1, "NOT_FOUND", "not_started")


def _wrong_params(broker: Broker) -> None:
    peer = broker.dealer()
    wrong: tuple[tuple[Any, str], ...] = (
        ({"a": 1, "b": "2"}, "$.b"),
        ({"a": 1}, "$.b"),
        ([1, "2"], "$[1]"),
    )
    for params, field in wrong:
        reply = peer.ask([CALL, 1, "add", params])
        details = expect_error(reply, 1, "INVALID_ARGUMENT", "not_started")
        expect_equal(details.get("field"), field, f"the field of the error for {params}")
    for params in ([1], {"a": 1, "b": 2, "c": 3}, [1, 2, 3], 7):
        reply = peer.ask([CALL, 1, "add", params])
        expect_error(reply, 1, "INVALID_ARGUMENT", "not_started")


def _a_node_that_fails(broker: Broker) -> None:
    details = expect_error(
        broker.dealer().ask([CALL, 1, "divide", [1, 0]]), 1, "NODE_ERROR", "executed"
    )
    expect_equal(details.get("exception"), "ZeroDivisionError", "the exception")
    expect("Traceback" in details.get("traceback", ""), "there is no traceback")


def _chunks(broker: Broker) -> None:
    reply = broker.dealer().ask([MAP_CHUNK, 1, "add", [[1, 2], {"a": 3}, None, {"a": 4, "b": 5}]])
    expect_equal(reply[:3], [MAP_RESULT, 1, [3, None, None, 9]], "the reply to a chunk")
    expect_equal(
        [failure[:2] for failure in reply[3]],
        [[1, "INVALID_ARGUMENT"], [2, "INVALID_ARGUMENT"]],
        "what failed of a chunk",
    )


def _parts(peer: Peer, items: int) -> list[Any]:
    """Take so many parts of request 1, and nothing more; returns what they have."""
    found: list[Any] = []
    while len(found) < items:
        reply = peer.reply()
        expect_equal(reply[:2], [PART, 1], "kind and id of a part")
        found.append(reply[2:4])
    return found


def _streams(broker: Broker) -> None:
    for size, more in ((1 << 20, 1 << 20), (None, None)):
        peer = broker.dealer()
        peer.send([CALL, 1, "count", [10], {"stream": [3, size]}])
        found = _parts(peer, 3)
        expect_equal(peer.until_pong(), [], "what comes beyond the credit")
        peer.send([CREDIT, 1, 4, more])
        found += _parts(peer, 4)
        expect_equal(peer.until_pong(), [], "what comes beyond the credit")
        peer.send([CREDIT, 1, 100, more])
        found += _parts(peer, 3)
        expect_equal(found, [[number, number] for number in range(10)], "numbers and values")
        expect_result(peer.reply(), 1, None)


def _collected(broker: Broker) -> None:
    expect_result(broker.dealer().ask([CALL, 1, "count", [3]]), 1, [0, 1, 2])


def _no_stream(broker: Broker) -> None:
    reply = broker.dealer().ask([CALL, 1, "add", [1, 2], {"stream": [1, 1]}])
    expect_error(reply, 1, "INVALID_ARGUMENT", "not_started")


def _bad_credit(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([CALL, 1, "count", [10], {"stream": [1, 1000]}])
    _parts(peer, 1)
    peer.send([CREDIT, 1, -1, 0])
    expect_error(peer.reply(), 1, "INVALID_ARGUMENT", "maybe_executed")


def _times(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([CALL, 1, "add", [1, 2], {"times": True}])
    times = peer.reply()
    expect_equal(times[:2], [TIMES, 1], "what comes before the result")
    moments = times[2:7]
    expect(moments == sorted(moments), f"the moments {moments} are not in order")
    expect_result(peer.reply(), 1, 3)


def _buffers(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([CALL, 1, "size", [Ext(1, b"\x00")], {"buffers": 1}], b"hello")
    expect_result(peer.reply(), 1, 5)
    expect_error(peer.ask([CALL, 2, "size", [Ext(1, b"\x00")]]), 2, "INVALID_ARGUMENT")


def _large_results(broker: Broker) -> None:
    peer = broker.dealer()
    for length in (10, 100_000):
        peer.send([CALL, 1, "zeros", [length]])
        reply, buffers = peer.take()
        expect_equal(reply[:2], [RESULT, 1], "kind and id of the reply")
        count = reply[3] if len(reply) > 3 else 0
        expect_equal(len(buffers), count, "the number of frames behind the reply")
        value = buffers[_index_in(reply[2])] if count else reply[2]
        expect(value == bytes(length), f"the result has not {length} zero bytes")


def _index_in(value: Any) -> int:
    """Tell which buffer a value refers to."""
    if not isinstance(value, Ext) or value.code != 1 or not value.data:
        raise Failure(f"{shown(value)} refers to no buffer, and one came")
    return bytes(value.data)[-1]


def _deadlines(broker: Broker) -> None:
    peer = broker.dealer()
    begun = monotonic()
    expect_error(peer.ask([CALL, 1, "wait", None, {"timeout_ms": 50}]), 1, "DEADLINE_EXCEEDED")
    taken_s = monotonic() - begun
    expect(0.04 <= taken_s <= 1.0, f"a deadline of 50 ms came after {taken_s * 1000:.0f} ms")
    for wrong in (0, -1, 31 * 86_400_000):
        reply = peer.ask([CALL, 2, "wait", None, {"timeout_ms": wrong}])
        expect_error(reply, 2, "INVALID_ARGUMENT", "not_started")


def _cancels(broker: Broker) -> None:
    peer = broker.dealer()
    peer.send([CALL, 1, "wait"], [CANCEL, 1])
    expect_error(peer.reply(), 1, "CANCELLED")
    peer.send([CANCEL, 1], [CANCEL, 99])
    expect_equal(peer.until_pong(), [], "the answer to cancelling what is not open")


def _goodbye(broker: Broker) -> None:
    peer = broker.dealer()
    peer.ask([HELLO, 0])
    peer.send([CALL, 1, "wait"], [GOODBYE])
    expect_equal(peer.until_pong(), [], "the answer to what goodbye has cancelled")
    peer.send([CALL, 1, "wait"], [CANCEL, 1])
    expect_error(peer.reply(), 1, "CANCELLED")


def _grants(broker: Broker) -> None:
    most = broker.limits["stranger_requests"]
    if most > 1000:
        raise Skip(f"its stranger_requests are {most}")
    peer = broker.dealer()
    peer.send(*([CALL, number, "wait"] for number in range(most + 1)))
    details = expect_error(peer.reply(), most, "RESOURCE_EXHAUSTED", "not_started")
    expect(details.get("retryable") is True, "it is not said to be retryable")
    expect(details.get("retry_after_ms", 0) > 0, "retry_after_ms is missing")
    peer.send([GOODBYE])
    expect_equal(peer.until_pong(), [], "what else is answered")


def _acks(broker: Broker) -> None:
    peer = broker.dealer()
    peer.ask([HELLO, 0])
    for number in range(3):
        peer.ask([CALL, number, "conformance.none"])
    before = _malformed(peer)
    peer.send([ACK, 1], [ACK, 2])
    expect_equal(_malformed(peer) - before, 0, "right acks that are counted as malformed")
    peer.send([ACK, 1], [ACK, 1000])
    expect_equal(_malformed(peer) - before, 2, "wrong acks that are counted as malformed")


def _malformed(peer: Peer) -> int:
    """Ask for the broker's count, which others may move as well."""
    reply = peer.ask([CALL, "stats", "pronghorn.stats"])
    if reply[:3] == [ERROR, "stats", "PERMISSION_DENIED"]:
        raise Skip("the key may not read statistics, and this needs them")
    counters: dict[str, int] = reply[2]["counters"]
    return counters["malformed"]


def _too_large(broker: Broker) -> None:
    most = broker.limits["request_bytes"]
    peer = broker.dealer()
    details = expect_error(
        peer.ask([CALL, 1, "conformance.none", [b"\0" * most]]),
        1,
        "INVALID_ARGUMENT",
        "not_started",
    )
    expect_equal(details.get("limit"), most, "the limit")


def _nesting(broker: Broker) -> None:
    peer = broker.dealer()
    deep = b"\x94\x23\x01\xa3add\x91" + b"\x91" * 100_000
    expect_error(peer.ask(deep), 1, "PROTOCOL_ERROR")


def _stream_transport(broker: Broker) -> None:
    if not broker.endpoint.startswith("ipc://"):
        raise Skip("they are beside ipc endpoints only")
    peer = broker.stream()
    expect_equal(peer.reply()[:2], [WELCOME, None], "the greeting")
    assert isinstance(peer.wire, StreamWire)
    frame = encode([PING, 5])
    for byte in len(frame).to_bytes(4, "little") + frame:
        peer.wire.write(bytes([byte]))
    expect_equal(peer.reply()[:2], [PONG, 5], "the answer to a ping in pieces")
    expect_error(peer.ask([CALL, 1, "conformance.none"]), 1, "NOT_FOUND")
    most = 4 * max(broker.limits["request_bytes"], broker.limits["result_bytes"])
    if most < 2**32 - 1:
        peer.wire.write((most + 1).to_bytes(4, "little"))
        expect(peer.wire.ends(), "a frame over four times the limit does not end the stream")


CHECKS: tuple[Check[Broker], ...] = (
    Check("a probe is answered by welcome", 2, _probe),
    Check("streams carry frames without ZeroMQ", 2, _stream_transport),
    Check("envelopes come back as they were", 3, _envelopes),
    Check("several requests may be in a message", 3, _many_in_a_message),
    Check("ids are integers and strings", 4, _ids),
    Check("an id that is open is refused", 4, _duplicate_ids, ("wait",)),
    Check("what newer clients send is ignored", 4, _newer_clients, ("add",)),
    Check("hello is answered by welcome", 5, _hello),
    Check("ping is answered by pong", 5, _ping),
    Check("bundles are taken", 5, _bundles),
    Check("strangers get no bundles", 5, _a_bundle_only_to_sessions),
    Check("calls by name and by position", 5, _calls, ("add",)),
    Check("chunks of a map", 5, _chunks, ("add",)),
    Check("parts come by credit", 5, _streams, ("count",)),
    Check("parts are collected without stream", 5, _collected, ("count",)),
    Check("stream is refused where there are no parts", 5, _no_stream, ("add",)),
    Check("times come before the result", 5, _times, ("add",)),
    Check("buffers carry large params", 6, _buffers, ("size",)),
    Check("buffers carry large results", 6, _large_results, ("zeros",)),
    Check("goodbye cancels what is open", 9, _goodbye, ("wait",)),
    Check("acks are counted", 10, _acks),
    Check("bad credit ends the call", 10, _bad_credit, ("count",)),
    Check("what is beyond the grant is refused", 10, _grants, ("wait",)),
    Check("deadlines are kept", 11, _deadlines, ("wait",)),
    Check("calls are cancelled", 11, _cancels, ("wait",)),
    Check("an unknown node is said to be", 12, _no_such_node),
    Check("wrong params are named", 12, _wrong_params, ("add",)),
    Check("a node's exception is told", 12, _a_node_that_fails, ("divide",)),
    Check("a request that is too large is refused", 13, _too_large),
    Check("nesting that is too deep is refused", 13, _nesting),
)
