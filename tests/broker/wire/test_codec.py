"""Mirror of broker/wire/codec.py."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronghorn.broker.wire.codec import (
    bundle_length,
    decode_bundle,
    decode_reply,
    decode_request,
    encode_message,
    is_bundle,
    peek_buffers,
    peek_id,
    shortened,
    split_bundle,
    split_envelope,
)
from pronghorn.broker.wire.errors import ProtocolError, UnimplementedError
from pronghorn.broker.wire.limits import QUOTED_CHARACTERS_MAX
from pronghorn.broker.wire.messages import Ping, Pong, ReplyBundle, bundle_replies, bundle_requests

encode = msgspec.msgpack.encode
CALL = encode([35, 1, "add", [1, 2]])
PING = encode([40, 1])
JSON = b'{"jsonrpc":"2.0","method":"add"}'

ids = (
    st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=300)
    | st.sampled_from([0, 127, 128, 255, 256, 65535, 65536, 2**32, -1, -32, -33, -128, -129])
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def cut_off(frame: bytes, length: int) -> bytes:
    return frame[: len(frame) - length]


# --- envelopes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "length"),
    [
        pytest.param([CALL], 0, id="none"),
        pytest.param([CALL, CALL], 0, id="none, many requests"),
        pytest.param([b"", CALL], 1, id="REQ"),
        pytest.param([b"\0\1\2\3", b"", CALL], 2, id="REQ_CORRELATE"),
        pytest.param([b"\x92\x28\xcc\xff", b"", CALL], 2, id="a counter that looks like a ping"),
        pytest.param([b"\0abcd", b"\0\1\2\3", b"", CALL], 3, id="through a proxy"),
        pytest.param([b"{shop}", b"", CALL], 2, id="a routing id in braces"),
        pytest.param([b"x"] * 7 + [b"", CALL], 8, id="the longest"),
        pytest.param([b"", CALL, b""], 1, id="only the first empty frame counts"),
        pytest.param([CALL, b"", CALL], 0, id="a request is no envelope"),
        pytest.param([PING, b""], 0, id="nor is a short one"),
        pytest.param([JSON, b"", CALL], 0, id="nor is JSON"),
        pytest.param([b"", b"", CALL], 1, id="two empty frames"),
    ],
)
def test_an_envelope_ends_with_the_first_empty_frame(frames: list[bytes], length: int) -> None:
    envelope, rest = split_envelope(frames)
    assert list(envelope) == frames[:length]
    assert list(rest) == frames[length:]


def test_an_envelope_too_long_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"frame 8 is empty: .* an envelope has at most 8"):
        split_envelope([b"x"] * 8 + [b"", CALL])


# --- bundles -------------------------------------------------------------------------------------


def test_a_bundle_is_many_requests_in_a_frame() -> None:
    frame = bundle_requests([PING, CALL, PING])
    assert is_bundle(frame)
    assert bundle_length(frame) == 3
    assert [encode_message(message)[1:3] for message in decode_bundle(frame)] == [
        PING[1:],
        CALL[1:3],
        PING[1:],
    ]
    assert split_bundle(frame) == [PING, CALL, PING]
    assert msgspec.msgpack.decode(frame) == [43, [[40, 1], [35, 1, "add", [1, 2]], [40, 1]]]


@pytest.mark.parametrize("length", [0, 1, 15, 16, 65535, 65536])
def test_its_length_is_told_by_its_header(length: int) -> None:
    assert bundle_length(encode([43, [None] * length])) == length


@pytest.mark.parametrize(
    "frame", [b"\x92\x2b", encode([43, None]), encode([43, {}]), b"\x92\x2b\xdc"]
)
def test_what_has_no_array_has_no_length(frame: bytes) -> None:
    assert bundle_length(frame) == 0
    for decode in (decode_bundle, split_bundle):
        with pytest.raises(ProtocolError, match="malformed message of kind 43"):
            decode(frame)


def test_a_bundle_with_a_bad_message_can_only_be_split() -> None:
    frame = encode([43, [[40, 1], 7, [35]]])
    with pytest.raises(ProtocolError, match="kind 43"):
        decode_bundle(frame)
    assert split_bundle(frame) == [PING, b"\x07", b"\x91\x23"]


def test_bundles_are_no_requests_themselves() -> None:
    assert not is_bundle(CALL)
    with pytest.raises(UnimplementedError, match="unknown message kind 43"):
        decode_request(bundle_requests([PING]))


def test_replies_come_in_bundles_too() -> None:
    pong = Pong(1, "e")
    frame = bundle_replies([encode_message(pong)] * 2)
    assert decode_reply(frame) == ReplyBundle([pong, pong])


# --- what can't be read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        pytest.param(b"hello", "not a request", id="text"),
        pytest.param(b"\xc1", "not a request", id="no msgpack at all"),
        pytest.param(encode({"id": 1}), "not a request", id="a map"),
        pytest.param(encode([]), "not a request", id="an empty array"),
        pytest.param(encode(["call", 1]), "not a request", id="a kind that is text"),
        pytest.param(encode([35.0, 1]), "not a request", id="a kind that is a float"),
        pytest.param(encode([-35, 1]), "not a request", id="a negative kind"),
        pytest.param(CALL[:5], "malformed message of kind 35", id="cut off in the name"),
        pytest.param(CALL[:-1], "malformed message of kind 35", id="cut off in the params"),
        pytest.param(CALL + b"\0", "malformed message of kind 35", id="bytes behind the end"),
        pytest.param(encode([35, 1]), r"kind 35: .* of at least length 3, got 2", id="too short"),
        pytest.param(encode([35, 1, 2]), r"`str`, got `int` - at `\$\[2\]`", id="no name"),
        pytest.param(encode([35, 1.5, "a"]), r"at `\$\[1\]`", id="an id that is a float"),
        pytest.param(encode([35, True, "a"]), r"at `\$\[1\]`", id="an id that is a bool"),
        pytest.param(encode([35, 1, "a", None, 7]), r"at `\$\[4\]`", id="options that are no map"),
        pytest.param(
            encode([35, 1, "a", None, {"timeout_ms": "1"}]), r"at `\$\[4\].timeout_ms`", id="option"
        ),
        pytest.param(encode([39, "x"]), r"at `\$\[1\]`", id="an ack of text"),
        pytest.param(b"\x94\x23\x01\xa1\xff\xc0", "kind 35: .*(?i:utf-8)", id="bad UTF-8"),
        pytest.param(b"\x94\x23\x01\xa1a" + b"\x91" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b"\x94\x23\x01\xa1a\xdd\xff\xff\xff\xff", "kind 35", id="a declared length"),
    ],
)
def test_a_malformed_request_says_what_is_wrong(frame: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_request(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            encode([67, 1, "add"]),
            "unknown protocol version 2 .kind 67.: this side speaks version 1",
        ),
        (encode([3, 1, "add"]), "unknown protocol version 0"),
        (encode([2**40, 1, "add"]), "unknown protocol version 34359738368"),
        (encode([60, 1, "add"]), "unknown message kind 60 .number 28."),
        (encode([49, 1, 3, 0]), "unknown message kind 49"),
        (encode([99]), "unknown protocol version 3"),
    ],
)
def test_what_is_not_spoken_is_said_to_be_so(frame: bytes, message: str) -> None:
    with pytest.raises(UnimplementedError, match=message):
        decode_request(frame)


def test_a_value_that_looks_like_msgspecs_message_is_not_taken_for_it() -> None:
    frame = encode([35, 1, "add", None, {"durability": "no `$[0]` at all"}])
    with pytest.raises(ProtocolError, match="kind 35"):
        decode_request(frame)


def test_what_a_peer_sent_is_quoted_at_bounded_length() -> None:
    frame = encode([35, 1, "add", None, {"durability": "x" * 1_000_000}])
    with pytest.raises(ProtocolError) as caught:
        decode_request(frame)
    assert len(caught.value.message) < 2 * QUOTED_CHARACTERS_MAX
    assert caught.value.message.endswith("- at `$[4].durability`")
    assert shortened("short") == "short"


def test_replies_are_explained_alike() -> None:
    assert decode_reply(encode_message(Pong(1, "e"))) == Pong(1, "e")
    with pytest.raises(ProtocolError, match="malformed message of kind 54"):
        decode_reply(encode([54, 1]))
    with pytest.raises(UnimplementedError, match="unknown message kind 40"):
        decode_reply(encode_message(Ping(1)))


@given(st.binary(max_size=200))
def test_random_bytes_raise_one_of_two_errors(frame: bytes) -> None:
    for decode in (decode_request, decode_reply, decode_bundle, split_bundle):
        with suppress(ProtocolError, UnimplementedError):
            decode(frame)
    bundle_length(frame)
    peek_id(frame)
    peek_buffers(frame)


@pytest.mark.slow
@given(st.sampled_from(range(30, 60)), st.lists(anything, max_size=6), st.data())
def test_damaged_requests_raise_one_of_two_errors(
    kind: int, rest: list[Any], data: st.DataObject
) -> None:
    frame = bytearray(encode([kind, *rest]))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(0, 255))
    for decode in (decode_request, decode_reply):
        with suppress(ProtocolError, UnimplementedError):
            decode(bytes(frame))
    peek_id(bytes(frame))
    peek_buffers(bytes(frame))


# --- what can be told of it none the less --------------------------------------------------------


@given(ids)
def test_the_id_is_read_of_a_frame_that_is_cut_off(id_: int | str) -> None:
    assert peek_id(cut_off(encode([35, id_, "add", [1, 2]]), 3)) == id_


@pytest.mark.parametrize("width", [b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"])
@pytest.mark.parametrize("kind", [b"\x23", b"\xcc\x23", b"\xcf\0\0\0\0\0\0\0\x23"])
def test_the_id_is_read_however_the_array_is_written(width: bytes, kind: bytes) -> None:
    assert peek_id(width + kind + b"\x07") == 7


@pytest.mark.parametrize("id_", [1.5, True, None, [1], {"a": 1}, b"x"])
def test_what_can_be_no_id_is_not_read_as_one(id_: Any) -> None:
    assert peek_id(encode([35, id_, "add"])) is None


@given(ids)
def test_an_id_that_is_cut_off_itself_is_none_or_a_shorter_text(id_: int | str) -> None:
    whole = encode([35, id_])
    for length in range(len(whole)):
        assert peek_id(whole[:length]) is None


@pytest.mark.parametrize(
    ("frame", "buffers"),
    [
        (encode([67, 1, "add", {}, {"buffers": 3}]), 3),
        (encode([60, 1, "add", {}, {"buffers": 3}, "more"]), 3),
        (encode([35, 1.5, "add", {"buffers": 9}, {"buffers": 3, "key": 1}]), 3),
        (encode([35, 1, "add", {"buffers": 9}]), 0),
        (encode([35, 1, "add", {}, {"buffers": "3"}]), 0),
        (encode([35, 1, "add", {}, {}]), 0),
        (encode([35, 1, "add", {}, None]), 0),
        (cut_off(encode([35, 1, "add", {}, {"buffers": 3}]), 1), 0),
        (b"garbage", 0),
    ],
)
def test_the_buffers_are_read_of_a_request_that_can_not_be(frame: bytes, buffers: int) -> None:
    assert peek_buffers(frame) == buffers
