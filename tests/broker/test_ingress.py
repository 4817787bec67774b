"""Mirror of broker/ingress.py."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronghorn.broker.events import Event, Malformed, Origin, Probed, Received, ReceivedJson
from pronghorn.broker.ingress import Ingress, StreamParser
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.link import CODEC_JSON, CODEC_MSGPACK, StreamError
from pronghorn.broker.wire.messages import (
    Ack,
    Call,
    Error,
    Goodbye,
    Hello,
    MapChunk,
    Options,
    Ping,
    bundle_requests,
)

PEER = b"\0peer"
LIMITS = Limits(
    request_bytes=4 * KIB, result_bytes=4 * KIB, grant_bytes=8 * KIB, buffers=3, frames=20
)
NOT_STARTED = ErrorDetails(outcome="not_started")

encode = msgspec.msgpack.encode
CALL = encode([35, 1, "add", [1, 2]])
WITH_BUFFERS = encode([35, 2, "echo", {}, {"buffers": 2}])
PING = encode([40, 3])


def parse(*frames: bytes, limits: Limits = LIMITS) -> list[Event]:
    return Ingress(limits).parse(PEER, frames)


def plain(events: list[Event]) -> list[Any]:
    """The ids of what was received, the errors of what was not."""
    return [
        event.error
        if isinstance(event, Malformed)
        else event.request.id
        if isinstance(event, ReceivedJson)
        else event.message.id  # type: ignore[union-attr]
        for event in events
    ]


def an_error(event: Event) -> Error:
    assert isinstance(event, Malformed)
    assert event.peer == PEER
    assert event.error.details.outcome == "not_started"
    return event.error


def only_error(*frames: bytes, limits: Limits = LIMITS) -> Error:
    [event] = parse(*frames, limits=limits)
    return an_error(event)


def in_envelope(*envelope: bytes, silent: bool = False) -> Origin:
    return Origin(envelope, CODEC_MSGPACK, silent, 0)


# --- the plain cases -----------------------------------------------------------------------------


def test_one_frame_is_one_request() -> None:
    [event] = parse(CALL)
    assert isinstance(event, Received)
    assert isinstance(event.message, Call)
    assert (event.message.id, event.message.node) == (1, "add")
    assert bytes(event.message.params) == b"\x92\x01\x02"
    assert (event.peer, event.size, event.origin, event.buffers) == (PEER, len(CALL), None, ())


def test_options_without_buffers_change_nothing() -> None:
    frame = encode([35, 1, "add", [1, 2], {"timeout_ms": 5}])
    [event] = parse(frame)
    assert isinstance(event, Received)
    assert isinstance(event.message, Call)
    assert event.message.options == Options(timeout_ms=5.0)


def test_an_empty_frame_alone_is_a_probe() -> None:
    assert parse(b"") == [Probed(PEER)]


def test_requests_may_follow_each_other() -> None:
    assert plain(parse(CALL, PING, CALL)) == [1, 3, 1]


def test_an_envelope_is_kept_for_the_reply() -> None:
    for envelope in ([b""], [b"\1\2\3\4", b""], [b"hop", b"\1\2\3\4", b""]):
        [event] = parse(*envelope, CALL)
        assert isinstance(event, Received)
        assert event.origin == in_envelope(*envelope)


def test_all_requests_behind_an_envelope_have_it() -> None:
    events = parse(b"", CALL, b"garbage", PING)
    assert [event.origin for event in events] == [in_envelope(b"")] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("frame", "silent"),
    [
        (encode([35, None, "add"]), True),
        (encode([36, None, "add", []]), True),
        (encode([35, 1, "add"]), False),
        (encode([40, None]), False),
        (encode([33, None]), False),
        (encode([41, None, "w"]), True),
        (encode([39, 3]), False),
    ],
)
def test_only_requests_of_nodes_without_an_id_want_no_reply(frame: bytes, silent: bool) -> None:
    [event] = parse(b"", frame)
    assert isinstance(event, Received)
    assert event.origin == in_envelope(b"", silent=silent)


# --- buffers -------------------------------------------------------------------------------------


def test_a_request_owns_the_frames_behind_it_that_it_names() -> None:
    events = parse(CALL, WITH_BUFFERS, b"one", b"\x93three", PING)
    assert plain(events) == [1, 2, 3]
    received = events[1]
    assert isinstance(received, Received)
    assert received.buffers == (b"one", b"\x93three")
    assert received.size == len(WITH_BUFFERS) + 9


def test_buffers_behind_an_envelope() -> None:
    [event] = parse(b"", WITH_BUFFERS, b"one", b"two")
    assert isinstance(event, Received)
    assert event.buffers == (b"one", b"two")
    assert event.origin == in_envelope(b"")


@pytest.mark.parametrize(
    ("count", "following", "left", "message"),
    [
        (2, [b"one"], [], "the request has 2 buffers, 1 frames follow it"),
        (1, [], [], "the request has 1 buffers, 0 frames follow it"),
        (4, [PING, PING, PING, PING, CALL], [1], "buffers is 4; a call has 0 to 3"),
        (10**15, [PING, PING], [], "buffers is 1000000000000000; a call has 0 to 3"),
        (-1, [PING], [3], "buffers is -1; a call has 0 to 3"),
        (2, [b"one", b"", PING], [3], "buffer 1 is empty: buffers never are"),
    ],
)
def test_a_wrong_count_of_buffers_is_one_error(
    count: int, following: list[bytes], left: list[int], message: str
) -> None:
    events = parse(encode([35, 9, "echo", {}, {"buffers": count}]), *following)
    error = an_error(events[0])
    assert (error.id, error.code, error.message) == (9, "PROTOCOL_ERROR", message)
    assert plain(events[1:]) == left


def test_a_run_has_buffers_as_a_call_has() -> None:
    [event] = parse(encode([41, 9, "order", None, {"buffers": 1}]), b"one")
    assert isinstance(event, Received)
    assert list(event.buffers) == [b"one"]


def test_frames_beyond_the_count_are_requests_of_their_own() -> None:
    events = parse(WITH_BUFFERS, b"one", b"two", b"three")
    assert plain(events[:1]) == [2]
    assert an_error(events[1]).message.startswith("not a request")


def test_what_has_no_buffers_takes_them_with_it_none_the_less() -> None:
    frame = encode([36, 9, "add", [], {"buffers": 1}])
    events = parse(frame, PING, CALL)
    assert an_error(events[0]).message == "buffers is 1, and only calls and runs have any"
    assert plain(events[1:]) == [1]
    assert an_error(parse(frame)[0]).id == 9


def test_buffers_of_a_request_that_can_not_be_read_are_not_taken_for_requests() -> None:
    unknown = encode([67, 9, "add", {}, {"buffers": 2}])
    events = parse(unknown, PING, PING, CALL)
    assert an_error(events[0]).code == "UNIMPLEMENTED"
    assert plain(events[1:]) == [1]
    assert len(parse(encode([67, 9, "add", {}, {"buffers": 5}]), PING)) == 1
    assert len(parse(encode([67, 9, "add", {}, {"buffers": -5}]), PING)) == 2


# --- bundles -------------------------------------------------------------------------------------


def test_a_bundle_is_as_if_each_request_came_by_itself() -> None:
    events = parse(bundle_requests([CALL, PING, CALL]))
    assert plain(events) == [1, 3, 1]
    assert [event.origin for event in events] == [None] * 3  # type: ignore[union-attr]
    # Of the bytes of a bundle those of params count.
    assert [event.size for event in events if isinstance(event, Received)] == [3, 0, 3]


def test_bundles_may_stand_beside_others() -> None:
    bundle = bundle_requests([PING, PING])
    assert plain(parse(CALL, bundle, WITH_BUFFERS, b"one", b"two", bundle)) == [1, 3, 3, 2, 3, 3]


def test_a_bad_request_in_a_bundle_does_not_harm_those_beside_it() -> None:
    frame = encode(
        [43, [[40, 3], 7, [35, 1, "add", [1, 2]], [35, 8], [67, 9, "x"], [43, [[40, 1]]]]]
    )
    events = parse(frame)
    assert plain([events[0], events[2]]) == [3, 1]
    errors = [an_error(event) for event in (events[1], *events[3:])]
    assert [(error.id, error.code) for error in errors] == [
        (None, "PROTOCOL_ERROR"),
        (8, "PROTOCOL_ERROR"),
        (9, "UNIMPLEMENTED"),
        (None, "PROTOCOL_ERROR"),
    ]
    assert errors[3].message == "a bundle holds no bundles"


def test_no_request_in_a_bundle_has_buffers() -> None:
    events = parse(bundle_requests([WITH_BUFFERS, PING]), PING)
    assert an_error(events[0]).message == "the request has 2 buffers, 0 frames follow it"
    assert an_error(events[0]).id == 2
    assert plain(events[1:]) == [3, 3]


def test_a_bundle_has_no_envelope() -> None:
    [event, ping] = parse(b"", bundle_requests([CALL]), PING)
    assert an_error(event).message == "a bundle has no envelope"
    assert event.origin == in_envelope(b"")  # type: ignore[union-attr]
    assert plain([ping]) == [3]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (encode([43, []]), "the bundle is empty"),
        (encode([43, None]), "malformed message of kind 43"),
        (bundle_requests([CALL])[:-1], "malformed message of kind 43"),
        (bundle_requests([CALL]) + b"x", "malformed message of kind 43"),
    ],
)
def test_what_is_no_bundle_is_one_error(frame: bytes, message: str) -> None:
    assert only_error(frame).message.startswith(message)


def test_a_bundle_has_as_many_requests_as_a_message_has_frames() -> None:
    assert len(parse(bundle_requests([PING] * 20))) == 20
    error = only_error(bundle_requests([PING] * 21))
    assert error.message == "the bundle has 21 requests: a message has at most 20 in all"
    assert error.details.limit == 20
    assert only_error(b"\x92\x2b\xdd\xff\xff\xff\xff").details.limit == 20
    events = parse(bundle_requests([PING] * 15), bundle_requests([PING] * 6), PING)
    assert plain(events[:15]) == [3] * 15
    assert an_error(events[15]).details.limit == 20
    assert plain(events[16:]) == [3]


def test_a_bundle_over_the_limit_has_its_requests_judged_by_themselves() -> None:
    events = parse(bundle_requests([call_of(4000), call_of(4 * KIB + 1), PING]))
    assert plain([events[0], events[2]]) == [9, 3]
    assert an_error(events[1]).message == "the request has 4097 bytes, the limit is 4096"


# --- limits --------------------------------------------------------------------------------------


def call_of(size: int) -> bytes:
    frame = encode([35, 9, "echo", [bytes(size - 12)]])
    assert len(frame) == size
    return frame


def test_a_request_at_the_limit_is_accepted() -> None:
    [event] = parse(call_of(4 * KIB))
    assert isinstance(event, Received)
    assert event.size == 4 * KIB


@pytest.mark.parametrize("around", [((), ()), ((b"",), ()), ((PING,), (PING,))])
def test_a_request_over_the_limit_is_refused(
    around: tuple[tuple[bytes, ...], tuple[bytes, ...]],
) -> None:
    before, after = around
    events = parse(*before, call_of(4 * KIB + 1), *after)
    [error] = [event.error for event in events if isinstance(event, Malformed)]
    assert error == Error(
        9,
        "INVALID_ARGUMENT",
        "the request has 4097 bytes, the limit is 4096",
        ErrorDetails(outcome="not_started", limit=4096),
    )


def test_buffers_count_to_the_size_of_their_request() -> None:
    room = 4 * KIB - len(WITH_BUFFERS)
    [event] = parse(WITH_BUFFERS, bytes(room - 1), b"x")
    assert isinstance(event, Received)
    assert event.size == 4 * KIB
    events = parse(WITH_BUFFERS, bytes(room), b"x", PING)
    assert an_error(events[0]).details.limit == 4096
    assert plain(events[1:]) == [3]


def test_a_frame_over_the_limit_takes_its_buffers_with_it() -> None:
    frame = encode([35, 9, "echo", [bytes(5000)], {"buffers": 1}])
    events = parse(frame, PING, CALL)
    assert an_error(events[0]).id == 9
    assert plain(events[1:]) == [1]


def test_json_over_the_limit_is_refused_in_json() -> None:
    frame = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "a", "params": ["x" * 5000]}).encode()
    [event] = parse(b"", frame)
    error = an_error(event)
    assert (error.id, error.code, error.details.limit) == (7, "INVALID_ARGUMENT", 4096)
    assert event.origin == Origin((b"",), CODEC_JSON, silent=False, batch=0)  # type: ignore[union-attr]
    assert only_error(b"[" + b"1," * 5000 + b"1]").id is None


def test_as_many_frames_as_the_limit_says() -> None:
    assert plain(parse(*[PING] * 20)) == [3] * 20
    assert len(parse(b"", *[PING] * 19)) == 19


def test_too_many_frames_are_one_error_with_the_first_id() -> None:
    error = only_error(CALL, *[PING] * 20)
    assert error == Error(
        1,
        "PROTOCOL_ERROR",
        "a message has at most 20 frames",
        ErrorDetails(outcome="not_started", limit=20),
    )
    [event] = parse(b"", CALL, *[PING] * 19)
    assert event == Malformed(PEER, error, in_envelope(b""))


def test_too_many_frames_of_json_are_answered_in_json() -> None:
    first = b'{"jsonrpc":"2.0","id":"j","method":"a"}'
    [event] = parse(*[first] * 21)
    assert an_error(event).id == "j"
    assert event.origin == Origin((), CODEC_JSON, silent=False, batch=0)  # type: ignore[union-attr]


# --- what can't be processed ---------------------------------------------------------------------


def test_garbage_is_one_error_each_and_harms_nobody() -> None:
    events = parse(b"garbage", CALL, CALL[:-1], PING)
    assert an_error(events[0]).id is None
    assert an_error(events[2]).id == 1
    assert plain([events[1], events[3]]) == [1, 3]
    error = only_error(b"garbage")
    assert error.message == (
        "not a request: a frame is a msgpack array [kind, id, ...] or JSON-RPC 2.0"
    )


def test_an_empty_frame_behind_a_request_is_an_error_of_its_own() -> None:
    events = parse(CALL, b"", PING)
    assert plain([events[0], events[2]]) == [1, 3]
    assert an_error(events[1]).message == "frame 1 is empty: requests and buffers never are"


def test_an_empty_request_behind_an_envelope_is_an_error_there() -> None:
    [event] = parse(b"", b"")
    assert an_error(event).message == "frame 1 is empty: requests and buffers never are"
    assert event.origin == in_envelope(b"")  # type: ignore[union-attr]
    assert len(parse(b"", b"", b"", b"")) == 3


def test_an_envelope_alone_is_an_error_in_it() -> None:
    [event] = parse(b"hop", b"")
    assert an_error(event).message == "the message has an envelope and no request"
    assert event.origin == in_envelope(b"hop", b"")  # type: ignore[union-attr]


def test_an_envelope_too_long_is_an_error_without_one() -> None:
    [event] = parse(*[b"hop"] * 8, b"", CALL)
    assert an_error(event).message.startswith("frame 8 is empty")
    assert event.origin is None  # type: ignore[union-attr]


def test_the_error_for_an_unreadable_frame_is_never_silent() -> None:
    [event] = parse(b"", encode([35, None, 5]))
    assert event.origin == in_envelope(b"")  # type: ignore[union-attr]


# --- JSON-RPC ------------------------------------------------------------------------------------


def test_json_comes_with_its_origin() -> None:
    frame = b'{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}'
    for envelope in ((), (b"",), (b"hop", b"")):
        [event] = parse(*envelope, frame)
        assert isinstance(event, ReceivedJson)
        assert (event.peer, event.request.id, event.size) == (PEER, 1, len(frame))
        assert event.origin == Origin(envelope, CODEC_JSON, silent=False, batch=0, batch_size=1)


def test_a_notification_is_silent() -> None:
    [event] = parse(b'{"jsonrpc":"2.0","method":"add"}')
    assert isinstance(event, ReceivedJson)
    assert event.origin.silent
    [event] = parse(b'{"jsonrpc":"2.0","id":null,"method":"add"}')
    assert isinstance(event, ReceivedJson)
    assert not event.origin.silent


def test_batches_are_numbered_and_their_requests_know_them() -> None:
    ingress = Ingress(LIMITS)
    frame = b'[{"jsonrpc":"2.0","id":1,"method":"a"},7,{"jsonrpc":"2.0","method":"b"}]'
    for number in (1, 2):
        events = ingress.parse(PEER, [b"", frame])
        assert [event.origin for event in events] == [  # type: ignore[union-attr]
            Origin((b"",), CODEC_JSON, silent, number, 3) for silent in (False, False, True)
        ]
        assert isinstance(events[1], Malformed)
        sizes = [event.size for event in events if isinstance(event, ReceivedJson)]
        assert sizes == [len(frame) // 3] * 2


def test_what_is_no_batch_is_one_error_outside_of_any() -> None:
    [event] = parse(b"[]")
    assert an_error(event).code == "PROTOCOL_ERROR"
    assert event.origin == Origin((), CODEC_JSON, silent=False, batch=0, batch_size=1)  # type: ignore[union-attr]


def test_json_and_msgpack_mix() -> None:
    json_call = b'{"jsonrpc":"2.0","id":"j","method":"add"}'
    assert plain(parse(json_call, CALL, json_call, PING)) == ["j", 1, "j", 3]


# --- whatever comes ------------------------------------------------------------------------------

garbage = st.binary(min_size=1, max_size=40).filter(lambda frame: frame[0] not in b"{[")
requests = st.sampled_from(
    [
        CALL,
        PING,
        WITH_BUFFERS,
        encode([34]),
        encode([39, 5]),
        encode([33, 1]),
        bundle_requests([CALL, PING]),
        encode([43, [[40, 3], 7]]),
        b'{"jsonrpc":"2.0","method":"a"}',
        b"[1,2]",
        b"{",
    ]
)
any_frames = st.lists(requests | garbage | st.binary(max_size=12), min_size=1, max_size=22)


@given(any_frames)
def test_nothing_that_comes_raises_and_something_always_comes_of_it(frames: list[bytes]) -> None:
    events = parse(*frames)
    assert events
    for event in events:
        assert isinstance(event, Received | ReceivedJson | Malformed | Probed)
        if isinstance(event, Malformed):
            an_error(event)


def is_no_request(frame: bytes) -> bool:
    return isinstance(parse(frame)[0], Malformed)


@pytest.mark.slow
@given(st.lists(garbage.filter(is_no_request), min_size=1, max_size=20))
def test_each_garbage_frame_is_exactly_one_error(frames: list[bytes]) -> None:
    events = parse(*frames)
    owning = [frame for frame in frames if b"buffers" in frame]
    assert owning or len(events) == len(frames)
    for event in events:
        an_error(event)


@given(st.lists(garbage, max_size=6), st.lists(garbage, max_size=6))
def test_garbage_beside_a_request_does_not_harm_it(before: list[bytes], after: list[bytes]) -> None:
    received = [
        event.message
        for event in parse(*before, CALL, *after)
        if isinstance(event, Received) and isinstance(event.message, Call)
    ]
    assert [(call.id, call.node) for call in received] == [(1, "add")]


def test_examples_of_what_else_may_come() -> None:
    assert plain(parse(encode([34]))) == [None]
    [event] = parse(encode([39, 5]))
    assert isinstance(event, Received)
    assert event.message == Ack(5)
    assert [
        type(event.message)
        for event in parse(
            encode([33, 0]), encode([34, 1]), encode([40, 1]), encode([36, 1, "a", []])
        )
        if isinstance(event, Received)
    ] == [Hello, Goodbye, Ping, MapChunk]


# --- streams ------------------------------------------------------------------------------------


def stream_parser() -> StreamParser:
    return StreamParser(Ingress(LIMITS), PEER, LIMITS)


def in_bursts(frames: list[bytes], length: int) -> list[Event]:
    """What comes of frames that are read from a stream so many at a time."""
    parser = stream_parser()
    events: list[Event] = []
    for start in range(0, len(frames), length):
        events += parser.parse(frames[start : start + length])
    return events


def call(id_: int, buffers: int) -> bytes:
    return encode([35, id_, "echo", {}, {"buffers": buffers}])


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_of_a_stream_each_frame_is_a_message_of_its_own(length: int) -> None:
    frames = [CALL, b"", b"garbage", bundle_requests([CALL, PING]), PING, b'{"jsonrpc":"2.0"']
    events = in_bursts(frames, length)
    assert [type(event) for event in events] == [
        Received,
        Probed,
        Malformed,
        Received,
        Received,
        Received,
        Malformed,
    ]
    assert [event for frame in frames for event in parse(frame)] == events


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_buffers_are_collected_as_they_come(length: int) -> None:
    events = in_bursts([call(1, 2), b"one", b"{two", CALL, call(2, 1), b"[three", PING], length)
    assert plain(events) == [1, 1, 2, 3]
    assert [list(event.buffers) for event in events if isinstance(event, Received)] == [
        [b"one", b"{two"],
        [],
        [b"[three"],
        [],
    ]
    assert events[:1] == Ingress(LIMITS).parse(PEER, [call(1, 2), b"one", b"{two"])


def test_nothing_comes_of_a_request_before_its_last_buffer() -> None:
    parser = stream_parser()
    assert list(parser.parse([WITH_BUFFERS])) == []
    assert list(parser.parse([b"one"])) == []
    assert plain(list(parser.parse([b"two"]))) == [2]


@pytest.mark.parametrize("length", [1, 3, 100])
@pytest.mark.parametrize(
    ("frames", "code", "part", "limit"),
    [
        ([call(7, 4), *[b"x"] * 4], "PROTOCOL_ERROR", "buffers is 4; a call has 0 to 3", 3),
        ([call(7, 20), *[b"x"] * 20], "PROTOCOL_ERROR", "buffers is 20", 3),
        ([call(7, -1)], "PROTOCOL_ERROR", "buffers is -1", 3),
        ([call(7, 2), b"x", b""], "PROTOCOL_ERROR", "buffer 1 is empty", None),
        ([call(7, 1), b"x" * 5000], "INVALID_ARGUMENT", "the limit is 4096", 4096),
        ([call(7, 2), b"x" * 5000, b"y"], "INVALID_ARGUMENT", "the limit is 4096", 4096),
        ([call(7, 3), *[b"x" * 2000] * 3], "INVALID_ARGUMENT", "has 6019 bytes", 4096),
        (
            [encode([36, 7, "echo", [], {"buffers": 1}]), b"x"],
            "PROTOCOL_ERROR",
            "only calls and runs have any",
            None,
        ),
        # What can't be read takes with it what it claims as buffers.
        ([encode([35, 7, 5, {}, {"buffers": 2}]), b"x", b"y"], "PROTOCOL_ERROR", "$[2]", None),
        ([encode([35, 7, 5, {}, {"buffers": 1}]), b""], "PROTOCOL_ERROR", "$[2]", None),
        ([encode([35, 7, 5, {}, {"buffers": 5}]), *[CALL] * 5], "PROTOCOL_ERROR", "$[2]", None),
    ],
)
def test_a_wrong_request_of_a_stream_takes_its_buffers_with_it(
    frames: list[bytes], code: str, part: str, limit: int | None, length: int
) -> None:
    """Whatever those look like; and what follows them is read."""
    first, *rest = in_bursts([*frames, CALL, b""], length)
    error = an_error(first)
    assert (error.id, error.code, error.details.limit) == (7, code, limit)
    assert part in error.message
    assert first.origin is None  # type: ignore[union-attr]
    assert plain(rest[:1]) == [1]
    assert [type(event) for event in rest] == [Received, Probed]


def test_of_a_request_that_is_too_large_little_is_kept() -> None:
    parser = stream_parser()
    parser.parse([call(7, 3), b"x" * 3000])
    assert len(parser._request) == 2
    parser.parse([b"x" * 3000])
    assert len(parser._request) == 1


def test_more_buffers_than_a_message_has_frames_are_not_passed_over() -> None:
    with pytest.raises(StreamError, match="a request announces 21 buffers"):
        stream_parser().parse([CALL, call(7, LIMITS.frames + 1)])


@given(any_frames, st.integers(1, 5))
def test_whatever_comes_of_a_stream_the_cuts_make_no_difference(
    frames: list[bytes], length: int
) -> None:
    try:
        events = in_bursts(frames, length)
    except StreamError:
        with pytest.raises(StreamError):
            in_bursts(frames, 100)
        return
    assert events == in_bursts(frames, 100)
    for event in events:
        if isinstance(event, Malformed):
            an_error(event)
            assert event.origin is None or not event.origin.envelope
