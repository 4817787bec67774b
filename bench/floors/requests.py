"""The request that the floors send: the bytes that our client would send for the same call.

Mirror: tests/bench/floors/test_requests.py.
"""

import msgspec

from pronghorn.broker.wire.messages import Call

PAYLOAD_64_KIB = 64 * 1024


def request(payload_bytes: int = 0) -> bytes:
    """Encode a call of `add`, or of `echo` with that many bytes as its one parameter."""
    parameters: dict[str, object] = {"a": 1, "b": 2}
    if payload_bytes:
        parameters = {"value": bytes(payload_bytes)}
    call = Call(
        id=1,
        node="echo" if payload_bytes else "add",
        params=msgspec.Raw(msgspec.msgpack.encode(parameters)),
    )
    return msgspec.msgpack.encode(call)
