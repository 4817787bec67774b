"""Mirror of broker/wire/jsonrpc.py."""

import json
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from pronghorn.broker.wire.errors import ERROR_CLASSES, ErrorDetails
from pronghorn.broker.wire.jsonrpc import (
    BadRequest,
    JsonRequest,
    decode,
    encode_error,
    encode_reply,
    join_batch,
    peek_id,
    to_error,
)
from pronghorn.broker.wire.limits import BATCH_REQUESTS_MAX, DEFAULT_LIMITS, MIB
from pronghorn.broker.wire.messages import (
    NIL,
    Error,
    MapResult,
    Options,
    Pong,
    Result,
    Welcome,
    WelcomeInfo,
)


def one(frame: bytes) -> JsonRequest:
    is_batch, requests = decode(frame)
    assert not is_batch
    [request] = requests
    assert isinstance(request, JsonRequest)
    return request


def bad(frame: bytes) -> BadRequest:
    is_batch, requests = decode(frame)
    assert not is_batch
    [request] = requests
    assert isinstance(request, BadRequest)
    return request


def test_a_request_keeps_its_params_raw() -> None:
    request = one(b'{"jsonrpc":"2.0","id":1,"method":"add","params":{"a": 1 , "b":2}}')
    assert (request.id, request.method, bytes(request.params)) == (1, "add", b'{"a": 1 , "b":2}')
    assert not request.is_notification
    assert request.options == Options()


@pytest.mark.parametrize("id_", [0, -1, 2**70, "x", None])
def test_an_id_is_an_integer_a_string_or_null(id_: int | str | None) -> None:
    frame = json.dumps({"jsonrpc": "2.0", "id": id_, "method": "add"}).encode()
    request = one(frame)
    assert request.id == id_
    assert not request.is_notification
    assert peek_id(frame) == id_


def test_without_an_id_it_is_a_notification() -> None:
    request = one(b'{"jsonrpc":"2.0","method":"add"}')
    assert request.is_notification
    assert request.id is UNSET
    assert bytes(request.params) == b"null"


def test_header_fields_are_extra_members() -> None:
    request = one(
        b'{"jsonrpc":"2.0","method":"add","timeout_ms":2.5,"durability":"none","key":"k",'
        b'"priority":1,"affinity":"a","trace":"t","unknown":[{}],"buffers":3,"stream":[1,2]}'
    )
    assert request.options == Options(
        timeout_ms=2.5, durability="none", key="k", priority=1, affinity="a", trace="t"
    )


@pytest.mark.parametrize(
    ("frame", "message", "id_"),
    [
        (b'{"jsonrpc":"1.0","id":1,"method":"add"}', r"Invalid enum value '1.0'", 1),
        (b'{"id":1,"method":"add"}', r"missing required field `jsonrpc`", 1),
        (b'{"jsonrpc":"2.0","id":"x"}', r"missing required field `method`", "x"),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', r"Expected `str`, got `int` - at `$.method`", 1),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"a"}', r"got `float` - at `$.id`", None),
        (b'{"jsonrpc":"2.0","id":[],"method":"a"}', r"got `array` - at `$.id`", None),
        (b'{"jsonrpc":"2.0","id":2,"method":"a","timeout_ms":"1"}', r"at `$.timeout_ms`", 2),
    ],
)
def test_an_invalid_request_says_why_and_keeps_its_id(
    frame: bytes, message: str, id_: int | str | None
) -> None:
    request = bad(frame)
    assert request.message.startswith("invalid request: ")
    assert message in request.message
    assert request.id == id_
    assert json.loads(encode_error(to_error(request)))["error"]["code"] == -32600


@pytest.mark.parametrize(
    "frame",
    [
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"add"',
        b'{"jsonrpc":"2.0","method":"a"} x',
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
        b'{"params":' + b"[" * 100_000,
        b'{"params":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[1,",
        b"[1 2]",
        b"[" * 100_000,
    ],
    ids=lambda frame: repr(frame[:12]),
)
def test_what_is_no_json_is_a_parse_error(frame: bytes) -> None:
    reply = json.loads(encode_error(to_error(bad(frame))))
    assert reply["id"] is None
    assert reply["error"]["code"] == -32700
    assert reply["error"]["message"].startswith("parse error: ")
    assert reply["error"]["data"] == {"code": "PROTOCOL_ERROR", "outcome": "not_started"}


def test_a_batch_keeps_the_order_and_puts_bad_requests_in_their_places() -> None:
    is_batch, requests = decode(
        b'[{"jsonrpc":"2.0","id":1,"method":"a"}, 7, {"jsonrpc":"2.0","method":"b"},'
        b' {"id":3}, [], "x"]'
    )
    assert is_batch
    assert [type(request) for request in requests] == [
        JsonRequest,
        BadRequest,
        JsonRequest,
        BadRequest,
        BadRequest,
        BadRequest,
    ]
    assert [request.id for request in requests] == [1, None, UNSET, 3, None, None]


@pytest.mark.parametrize("frame", [b"[]", b" []"[1:], b"[ ]"])
def test_an_empty_batch_is_one_bad_request(frame: bytes) -> None:
    assert bad(frame).message == "an empty batch is not a request"


def test_a_batch_has_a_largest_size() -> None:
    request = b'{"jsonrpc":"2.0","method":"a"}'
    is_batch, requests = decode(b"[" + b",".join([request] * BATCH_REQUESTS_MAX) + b"]")
    assert is_batch
    assert len(requests) == BATCH_REQUESTS_MAX
    over = bad(b"[" + b",".join([request] * (BATCH_REQUESTS_MAX + 1)) + b"]")
    assert over.message == "a batch has at most 1000 requests"


def test_a_bomb_of_a_batch_is_refused_at_once() -> None:
    bomb = b"[" + b"1," * (8 * MIB - 2) + b"1]"
    decode(b"[1]")
    tracemalloc.start()
    begun = time.process_time()
    request = bad(bomb)
    assert time.process_time() - begun < 0.1
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()
    assert request.message == "a batch has at most 1000 requests"


def test_what_a_peer_sent_is_quoted_at_bounded_length() -> None:
    request = bad(b'{"jsonrpc":"' + b"x" * 1_000_000 + b'","id":1,"method":"a"}')
    assert len(request.message) < 1100
    assert request.id == 1


@given(st.binary(max_size=100))
def test_random_bytes_never_raise(tail: bytes) -> None:
    for first in (b"{", b"["):
        is_batch, requests = decode(first + tail)
        assert requests
        assert is_batch or len(requests) == 1
        peek_id(first + tail)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    st.lists(
        json_values
        | st.fixed_dictionaries(
            {"jsonrpc": st.just("2.0"), "method": st.text(), "id": json_values},
            optional={"params": json_values, "timeout_ms": json_values},
        ),
        min_size=1,
        max_size=5,
    )
)
def test_each_item_of_a_batch_is_one_request_or_bad_request(items: list[Any]) -> None:
    is_batch, requests = decode(json.dumps(items).encode())
    assert is_batch
    assert len(requests) == len(items)


# --- replies -------------------------------------------------------------------------------------


def test_a_result_is_the_raw_json_of_the_worker() -> None:
    reply = encode_reply(Result("x", Raw(b'{"a" :1}')))
    assert reply == b'{"jsonrpc":"2.0","id":"x","result":{"a" :1}}'


def test_pong_and_welcome_are_results() -> None:
    assert encode_reply(Pong(1, "e1")) == b'{"jsonrpc":"2.0","id":1,"result":{"epoch":"e1"}}'
    info = WelcomeInfo(version=1, epoch="e1", server="s", pid=0, limits=DEFAULT_LIMITS)
    assert json.loads(encode_reply(Welcome(1, info)))["result"]["epoch"] == "e1"


def test_no_other_message_answers_json() -> None:
    with pytest.raises(AssertionError, match="MapResult"):
        encode_reply(MapResult(1, NIL))


def test_an_error_has_our_fields_in_its_data() -> None:
    details = ErrorDetails(outcome="executed", exception="ValueError", traceback="…")
    assert json.loads(encode_reply(Error(1, "NODE_ERROR", "no", details))) == {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {
            "code": -32000,
            "message": "no",
            "data": {
                "code": "NODE_ERROR",
                "outcome": "executed",
                "exception": "ValueError",
                "traceback": "…",
            },
        },
    }


def test_each_code_has_a_number() -> None:
    numbers = {
        code: json.loads(encode_error(Error(1, code, "", ErrorDetails())))["error"]["code"]
        for code in (*ERROR_CLASSES, "INVENTED_LATER")
    }
    assert numbers == {
        "PROTOCOL_ERROR": -32600,
        "NOT_FOUND": -32601,
        "UNIMPLEMENTED": -32601,
        "INVALID_ARGUMENT": -32602,
        "INTERNAL": -32603,
        "NODE_ERROR": -32000,
        "DEADLINE_EXCEEDED": -32001,
        "CANCELLED": -32002,
        "RESOURCE_EXHAUSTED": -32003,
        "WORKER_LOST": -32004,
        "BROKER_LOST": -32005,
        "PERMISSION_DENIED": -32006,
        "JOURNAL_ERROR": -32007,
        "INTERRUPTED": -32008,
        "INVENTED_LATER": -32603,
    }


def test_a_batch_of_replies_is_an_array_and_nothing_without_replies() -> None:
    assert join_batch([b'{"id":1}', b'{"id":2}']) == b'[{"id":1},{"id":2}]'
    assert join_batch([]) == b""
    assert msgspec.json.decode(join_batch([b"{}"])) == [{}]
