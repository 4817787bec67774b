"""Mirror of broker/egress.py."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.egress import Egress
from pronghorn.broker.events import Origin, Send
from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, KIB, Limits
from pronghorn.broker.wire.link import CODEC_JSON, CODEC_MSGPACK
from pronghorn.broker.wire.messages import BrokerMessage, Error, Part, Pong, ReplyBundle, Result

PEER = b"\0peer"
PONG = Pong(1, "e1")


def result(id_: int | str | None, value: bytes = b"\x03", buffers: int = 0) -> Result:
    return Result(id_, Raw(value), buffers)


def send(message: BrokerMessage, origin: Origin | None = None, **more: Any) -> Send:
    return Send(PEER, message, origin, **more)


def bundled(message: BrokerMessage) -> Send:
    return send(message, batched=True)


def in_json(batch: int = 0, size: int = 1, *, silent: bool = False, envelope: Any = ()) -> Origin:
    return Origin(tuple(envelope), CODEC_JSON, silent, batch, size)


def in_envelope(*envelope: bytes, silent: bool = False) -> Origin:
    return Origin(envelope, CODEC_MSGPACK, silent, 0)


@pytest.fixture
def egress() -> Egress:
    return Egress(DEFAULT_LIMITS)


# --- msgpack -------------------------------------------------------------------------------------


def test_a_stranger_gets_each_reply_as_a_message_of_its_own(egress: Egress) -> None:
    messages = egress.messages(PEER, [send(result(1)), send(PONG)])
    assert messages == [[b"\x94\x31\x01\x03\x00"], [encode_message(PONG)]]


def test_who_said_hello_gets_small_replies_in_one_frame(egress: Egress) -> None:
    [[frame]] = egress.messages(PEER, [bundled(result(id_)) for id_ in range(3)])
    assert msgspec.msgpack.decode(frame) == [56, [[49, 0, 3, 0], [49, 1, 3, 0], [49, 2, 3, 0]]]


def test_one_reply_is_no_bundle(egress: Egress) -> None:
    assert egress.messages(PEER, [bundled(result(1))]) == [[b"\x94\x31\x01\x03\x00"]]
    assert egress.messages(PEER, []) == []


def test_large_replies_and_those_with_buffers_are_not_bundled(egress: Egress) -> None:
    large = result(2, msgspec.msgpack.encode(bytes(5 * KIB)))
    with_buffer = send(result(3, b"\xc0", buffers=1), buffers=(b"buffer",), batched=True)
    messages = egress.messages(
        PEER, [bundled(result(1)), bundled(large), with_buffer, bundled(result(4))]
    )
    assert messages == [
        [encode_message(large)],
        [encode_message(result(3, b"\xc0", buffers=1)), b"buffer"],
        [
            msgspec.msgpack.encode([56, [[49, 1, 3, 0], [49, 4, 3, 0]]]).replace(
                b"8\x92", b"8\xdd\0\0\0\x02"
            )
        ],
    ]


def test_a_bundle_does_not_grow_without_end(egress: Egress) -> None:
    value = msgspec.msgpack.encode(bytes(4000))
    messages = egress.messages(PEER, [bundled(result(id_, value)) for id_ in range(50)])
    ids = []
    for [frame] in messages:
        assert len(frame) < 70 * KIB
        ids += [reply[1] for reply in msgspec.msgpack.decode(frame)[1]]
    assert ids == list(range(50))
    assert len(messages) == 3


def test_an_envelope_is_given_back(egress: Egress) -> None:
    replies = [
        send(result(1, b"\xc0", buffers=1), in_envelope(b"hop", b""), buffers=(b"buffer",)),
        send(result(2), in_envelope(b"")),
    ]
    assert egress.messages(PEER, replies) == [
        [b"hop", b"", b"\x94\x31\x01\xc0\x01", b"buffer"],
        [b"", b"\x94\x31\x02\x03\x00"],
    ]


def test_a_req_socket_gets_an_empty_reply_where_there_is_none(egress: Egress) -> None:
    silent = in_envelope(b"\1\2\3\4", b"", silent=True)
    assert egress.messages(PEER, [send(result(None), silent)]) == [[b"\1\2\3\4", b"", b""]]
    assert egress.messages(PEER, [send(result(None), in_envelope(silent=True))]) == []


# --- JSON ----------------------------------------------------------------------------------------


def test_json_is_answered_in_json(egress: Egress) -> None:
    reply = send(result("x", b'{"a":1}'), in_json(envelope=[b""]))
    assert egress.messages(PEER, [reply]) == [[b"", b'{"jsonrpc":"2.0","id":"x","result":{"a":1}}']]


def test_a_notification_gets_nothing_and_over_an_envelope_an_empty_frame(egress: Egress) -> None:
    assert egress.messages(PEER, [send(result(None, b"3"), in_json(silent=True))]) == []
    over = in_json(silent=True, envelope=[b"hop", b""])
    assert egress.messages(PEER, [send(result(None, b"3"), over)]) == [[b"hop", b"", b""]]


def test_replies_of_a_batch_are_collected_until_all_have_come(egress: Egress) -> None:
    batch = in_json(batch=7, size=3, envelope=[b""])
    quiet = in_json(batch=7, size=3, envelope=[b""], silent=True)
    assert egress.messages(PEER, [send(result(2, b"2"), batch)]) == []
    assert egress.messages(PEER, [send(result(None, b"0"), quiet)]) == []
    [[empty, reply]] = egress.messages(PEER, [send(result(1, b"1"), batch)])
    assert empty == b""
    assert json.loads(reply) == [
        {"jsonrpc": "2.0", "id": 2, "result": 2},
        {"jsonrpc": "2.0", "id": 1, "result": 1},
    ]


def test_batches_do_not_mix(egress: Egress) -> None:
    def of(batch: int, id_: int) -> Send:
        return send(result(id_, b"0"), in_json(batch=batch, size=2))

    messages = egress.messages(PEER, [of(1, 10), of(2, 20), of(2, 21), of(1, 11)])
    assert [[reply["id"] for reply in json.loads(frame)] for [frame] in messages] == [
        [20, 21],
        [10, 11],
    ]


def test_a_batch_of_notifications_gets_no_array(egress: Egress) -> None:
    def quiet(*envelope: bytes) -> list[Send]:
        origin = in_json(batch=1, size=2, silent=True, envelope=envelope)
        return [send(result(None, b"0"), origin)] * 2

    assert egress.messages(PEER, quiet()) == []
    assert egress.messages(PEER, quiet(b"")) == [[b"", b""]]


SMALL = Limits(request_bytes=4 * KIB, result_bytes=4 * KIB, grant_bytes=4 * KIB)


def test_what_a_batch_has_no_room_for_is_an_error_of_its_own() -> None:
    egress = Egress(SMALL)
    batch = in_json(batch=1, size=4)
    large = json.dumps("x" * 2500).encode()
    late = Error(3, "NODE_ERROR", "x" * 2500, ErrorDetails(outcome="maybe_executed"))
    sends = [send(result(1, large), batch), send(result(2, large), batch)]
    sends += [send(late, batch), send(result(4, b"4"), batch)]
    [[frame]] = egress.messages(PEER, sends)
    first, second, third, fourth = json.loads(frame)
    assert first["result"] == "x" * 2500
    assert fourth == {"jsonrpc": "2.0", "id": 4, "result": 4}
    for id_, reply, outcome in ((2, second, "executed"), (3, third, "maybe_executed")):
        assert reply == {
            "jsonrpc": "2.0",
            "id": id_,
            "error": {
                "code": -32003,
                "message": "the replies of the batch have more than 4096 bytes together, the limit",
                "data": {"code": "RESOURCE_EXHAUSTED", "outcome": outcome, "limit": 4096},
            },
        }


def test_a_batch_of_one_reply_that_is_too_large_is_answered_none_the_less() -> None:
    large = json.dumps("x" * 4094).encode()  # as large as a result may be
    [[frame]] = Egress(SMALL).messages(PEER, [send(result(1, large), in_json(batch=1))])
    [reply] = json.loads(frame)
    assert (reply["id"], reply["error"]["code"]) == (1, -32003)


def test_what_was_collected_for_a_client_that_is_gone_is_dropped(egress: Egress) -> None:
    half = send(result(1, b"1"), in_json(batch=1, size=2))
    other = Send(b"other", result(9, b"9"), in_json(batch=1, size=2))
    egress.messages(PEER, [half])
    egress.messages(b"other", [other])
    egress.forget(PEER)
    assert egress.messages(PEER, [half]) == []
    assert len(egress.messages(b"other", [other])) == 1


def test_nothing_overtakes_a_part() -> None:
    """A large reply leaves in frames of its own; the parts before it must not come behind it."""
    parts = [Send(b"p", Part(1, seq, Raw(b"\x01")), batched=True) for seq in range(3)]
    large = Send(b"p", Part(1, 3, Raw(b"\x01"), 1), None, [b"x" * 100], batched=True)
    end = Send(b"p", Result(1, Raw(b"\xc0")), batched=True)
    messages = Egress(DEFAULT_LIMITS).messages(b"p", [*parts, large, end])
    first = decode_reply(messages[0][0])
    assert isinstance(first, ReplyBundle)
    assert first.messages == [send.message for send in parts]
    assert messages[1:] == [
        [encode_message(large.message), b"x" * 100],
        [encode_message(end.message)],
    ]
