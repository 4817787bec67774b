"""Mirror of broker/wire/messages.py. The bytes themselves are in broker/wire/vectors/."""

from typing import Any, get_args

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_reply, decode_request, encode_message
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, KINDS_PER_VERSION, PROTOCOL_VERSION
from pronghorn.broker.wire.messages import (
    NIL,
    Ack,
    BrokerMessage,
    Call,
    Cancel,
    ClientMessage,
    Credit,
    Error,
    Event,
    Goodbye,
    Hello,
    ItemFailure,
    MapChunk,
    MapResult,
    Options,
    Part,
    Ping,
    Pong,
    Progress,
    ReplyBundle,
    RequestBundle,
    Result,
    Run,
    Subscribe,
    Times,
    Welcome,
    WelcomeInfo,
    bundle_replies,
    bundle_requests,
)

INFO = WelcomeInfo(version=1, epoch="e1", server="pronghorn/1", pid=7, limits=DEFAULT_LIMITS)

REQUESTS: list[tuple[ClientMessage, int, list[Any]]] = [
    (Hello(0, "me/1", b"s"), 33, [0, "me/1", b"s"]),
    (Goodbye(), 34, [None]),
    (Call(1, "add", Raw(b"\x92\x01\x02")), 35, [1, "add", [1, 2], None]),
    (MapChunk("m", "add", Raw(b"\x90")), 36, ["m", "add", [], None]),
    (Cancel(1), 37, [1]),
    (Credit(1, 2, 3), 38, [1, 2, 3, 0]),
    (Ack(4), 39, [4]),
    (Ping(5), 40, [5]),
    (Run(6, "order"), 41, [6, "order", None, None]),
    (Subscribe(7, "runs"), 42, [7, "runs", 0]),
]
REPLIES: list[tuple[BrokerMessage, int, list[Any]]] = [
    (Welcome(None, INFO), 48, [None, msgspec.to_builtins(INFO)]),
    (Result(1, Raw(b"\x03")), 49, [1, 3, 0]),
    (
        MapResult(1, Raw(b"\x91\xc0"), (ItemFailure(0, "C", "m", ErrorDetails(limit=1)),), 0.5),
        50,
        [1, [None], [[0, "C", "m", {"limit": 1}]], 0.5],
    ),
    (Part(1, 2, Raw(b"\x03")), 51, [1, 2, 3, 0]),
    (Progress(1, 0.5), 52, [1, 0.5, None, ""]),
    (
        Error(1, "NOT_FOUND", "no", ErrorDetails(node="x")),
        53,
        [1, "NOT_FOUND", "no", {"node": "x"}],
    ),
    (Pong(1, "e1"), 54, [1, "e1"]),
    (Event(1, 2, "done", NIL), 55, [1, 2, "done", None]),
    (Times(1, 2, None, 3, 4, 5), 57, [1, 2, None, 3, 4, 5]),
]


def named(case: Any) -> str:
    return type(case).__name__ if isinstance(case, msgspec.Struct) else ""


def test_there_is_an_example_of_each() -> None:
    assert {type(message) for message, _, _ in REQUESTS} == set(get_args(ClientMessage))
    assert {type(message) for message, _, _ in REPLIES} == set(get_args(BrokerMessage))


@pytest.mark.parametrize(("message", "kind", "rest"), REQUESTS, ids=named)
def test_a_request_is_an_array_that_begins_with_its_kind(
    message: ClientMessage, kind: int, rest: list[Any]
) -> None:
    frame = encode_message(message)
    assert msgspec.msgpack.decode(frame) == [kind, *rest]
    assert encode_message(decode_request(frame)) == frame


@pytest.mark.parametrize(("message", "kind", "rest"), REPLIES, ids=named)
def test_a_reply_is_an_array_that_begins_with_its_kind(
    message: BrokerMessage, kind: int, rest: list[Any]
) -> None:
    frame = encode_message(message)
    assert msgspec.msgpack.decode(frame) == [kind, *rest]
    assert encode_message(decode_reply(frame)) == frame


def test_bundles_hold_what_is_encoded_already() -> None:
    requests = [message for message, _, _ in REQUESTS]
    frame = bundle_requests([encode_message(message) for message in requests])
    assert msgspec.msgpack.decode(frame) == [43, [[kind, *rest] for _, kind, rest in REQUESTS]]
    again = msgspec.msgpack.decode(frame, type=RequestBundle)
    assert encode_message(again)[2:] == msgspec.msgpack.encode(requests)
    replies = [message for message, _, _ in REPLIES]
    frame = bundle_replies([encode_message(message) for message in replies])
    assert msgspec.msgpack.decode(frame) == [56, [[kind, *rest] for _, kind, rest in REPLIES]]
    assert len(msgspec.msgpack.decode(frame, type=ReplyBundle).messages) == len(replies)


def test_kinds_are_of_the_version_and_differ() -> None:
    kinds = [43, 56, *(kind for _, kind, _ in (*REQUESTS, *REPLIES))]
    assert len(set(kinds)) == len(kinds)
    assert {kind // KINDS_PER_VERSION for kind in kinds} == {PROTOCOL_VERSION}


def test_options_that_are_not_set_are_not_sent() -> None:
    frame = encode_message(Call(1, "add", NIL, Options(timeout_ms=250.0, buffers=2)))
    assert msgspec.msgpack.decode(frame)[4] == {"timeout_ms": 250.0, "buffers": 2}


def test_all_options_survive() -> None:
    options = Options(
        timeout_ms=1.5,
        buffers=1,
        durability="sync",
        key="k",
        priority=3,
        affinity="a",
        trace="00-1-1-00",
        value_ref="v",
        stream=(8, 65536),
    )
    decoded = decode_request(encode_message(Call(1, "add", NIL, options)))
    assert isinstance(decoded, Call)
    assert decoded.options == options


def test_elements_at_the_end_may_be_left_out() -> None:
    assert decode_request(msgspec.msgpack.encode([34])) == Goodbye(None)
    assert decode_request(msgspec.msgpack.encode([33, 1])) == Hello(1, "", None)
    short = decode_request(msgspec.msgpack.encode([35, 1, "now"]))
    assert isinstance(short, Call)
    assert (bytes(short.params), short.options) == (b"\xc0", None)


def test_elements_and_options_of_a_newer_client_are_ignored() -> None:
    longer = decode_request(msgspec.msgpack.encode([40, 1, "new", {}]))
    assert longer == Ping(1)
    call = decode_request(msgspec.msgpack.encode([35, 1, "add", None, {"new": 1}, 7]))
    assert isinstance(call, Call)
    assert call.options == Options()
