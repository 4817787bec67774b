"""The floors send what our client sends."""

import msgspec

from pronghorn.bench.floors.requests import PAYLOAD_64_KIB, request
from pronghorn.broker.wire.messages import Call


def test_a_request_is_a_call_of_the_wire() -> None:
    call = msgspec.msgpack.decode(request(), type=Call)
    assert call.node == "add"
    assert msgspec.msgpack.decode(call.params) == {"a": 1, "b": 2}


def test_a_large_request_carries_its_payload() -> None:
    call = msgspec.msgpack.decode(request(PAYLOAD_64_KIB), type=Call)
    assert msgspec.msgpack.decode(call.params) == {"value": bytes(PAYLOAD_64_KIB)}
