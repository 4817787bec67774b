"""Replays broker/wire/vectors/*.json both ways: bytes to meaning, and meaning to bytes.

A change of these files is a change of the protocol.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy
import pytest
from msgspec import UNSET, Raw
from msgspec.msgpack import Ext

from pronghorn.broker.egress import Egress
from pronghorn.broker.events import Event, Malformed, Origin, Probed, Received, ReceivedJson, Send
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.wire import limits, messages
from pronghorn.broker.wire.codec import decode_reply, decode_request, encode_message
from pronghorn.broker.wire.errors import ERROR_CLASSES
from pronghorn.broker.wire.jsonrpc import BadRequest, JsonRequest, decode, encode_reply
from pronghorn.broker.wire.jsonrpc import to_error as bad_request_error
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, PROTOCOL_VERSION
from pronghorn.broker.wire.link import CODEC_JSON
from pronghorn.broker.wire.messages import BrokerMessage, ClientMessage, ItemFailure, Options
from pronghorn.broker.wire.values import decode_value, encode_value

FOLDER = Path(limits.__file__).parent / "vectors"
Vector = dict[str, Any]


def load(name: str, part: str = "vectors") -> list[Any]:
    document = json.loads((FOLDER / name).read_text())
    assert document["protocol_version"] == PROTOCOL_VERSION
    return [pytest.param(vector, id=vector["name"]) for vector in document[part]]


def named(cls: type) -> str:
    """The name of a kind as the vectors have it: MapChunk is map_chunk."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_")


CLASSES = {named(cls): cls for cls in (*get_args(ClientMessage), *get_args(BrokerMessage))}


# --- between what the files say and what we have -------------------------------------------------


def to_json(value: Any) -> Any:
    """Say a decoded value as the files do."""
    match value:
        case bytes():
            return {"$bytes": value.hex(" ")}
        case Ext():
            return {"$ext": [value.code, bytes(value.data).hex(" ")]}
        case Raw():
            return to_json(msgspec.msgpack.decode(value))
        case Options():
            return to_json(
                {
                    name: getattr(value, name)
                    for name in value.__struct_fields__
                    if getattr(value, name) != getattr(messages.NO_OPTIONS, name)
                }
            )
        case ItemFailure():
            return [to_json(part) for part in msgspec.structs.astuple(value)]
        case msgspec.Struct():
            return to_json(msgspec.to_builtins(value))
        case dict():
            return {name: to_json(inner) for name, inner in value.items()}
        case list() | tuple():
            return [to_json(inner) for inner in value]
    return value


def from_json(value: Any) -> Any:
    """Make the value that the files speak of."""
    match value:
        case {"$bytes": text}:
            return bytes.fromhex(text)
        case {"$ext": [code, text]}:
            return Ext(code, bytes.fromhex(text))
        case dict():
            return {name: from_json(inner) for name, inner in value.items()}
        case list():
            return [from_json(inner) for inner in value]
    return value


def meaning_of(message: Any) -> dict[str, Any]:
    fields = {name: to_json(getattr(message, name)) for name in message.__struct_fields__}
    return {"kind": named(type(message)), **fields}


def message_of(meaning: dict[str, Any]) -> Any:
    """Build a message from its meaning, raw fields encoded as they stand."""
    cls = CLASSES[meaning["kind"]]
    fields = {name: from_json(value) for name, value in meaning.items() if name != "kind"}
    for field in msgspec.structs.fields(cls):
        if field.type is Raw:
            fields[field.name] = Raw(msgspec.msgpack.encode(fields[field.name]))
        else:
            fields[field.name] = msgspec.convert(fields[field.name], field.type)
    return cls(**fields)


# --- single frames -------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("requests.json"))
def test_requests(vector: Vector) -> None:
    frame = bytes.fromhex(vector["frame"])
    assert meaning_of(decode_request(frame)) == vector["meaning"]
    if "decode_only" not in vector:
        assert encode_message(message_of(vector["meaning"])) == frame


@pytest.mark.parametrize("vector", load("replies.json"))
def test_replies(vector: Vector) -> None:
    frame = bytes.fromhex(vector["frame"])
    assert meaning_of(decode_reply(frame)) == vector["meaning"]
    if "decode_only" not in vector:
        message = message_of(vector["meaning"])
        assert Egress(DEFAULT_LIMITS).messages(b"peer", [Send(b"peer", message)]) == [[frame]]


def test_each_kind_and_each_code_has_a_vector() -> None:
    vectors = [
        param.values[0] for name in ("requests", "replies") for param in load(f"{name}.json")
    ]
    assert {vector["meaning"]["kind"] for vector in vectors} == CLASSES.keys()
    assert {vector["meaning"].get("code") for vector in vectors} >= ERROR_CLASSES.keys()


# --- whole messages ------------------------------------------------------------------------------


def parse(vector: Vector) -> list[Event]:
    frames = [bytes.fromhex(frame) for frame in vector["frames"]]
    return Ingress(DEFAULT_LIMITS).parse(b"peer", frames)


def said(event: Event) -> dict[str, Any]:
    match event:
        case Probed():
            return {"kind": "probe"}
        case ReceivedJson(request=request):
            return {"kind": "json", "text": _text(request)}
        case Received(message=message, buffers=buffers):
            own = {"buffers": to_json(buffers)} if buffers else {}
            return meaning_of(message) | own
    raise AssertionError(event)


def _text(request: JsonRequest) -> str:
    return (
        f'{{"jsonrpc":"2.0","id":{request.id},"method":"{request.method}",'
        f'"params":{bytes(request.params).decode()}}}'
    )


def without_buffer_counts(meaning: Any) -> Any:
    """The count stands in the options, the buffers themselves beside them."""
    options = meaning.get("options")
    if isinstance(options, dict):
        return {**meaning, "options": {k: v for k, v in options.items() if k != "buffers"}}
    return meaning


@pytest.mark.parametrize("vector", load("messages.json"))
def test_messages(vector: Vector) -> None:
    events = parse(vector)
    envelope = [bytes.fromhex(frame) for frame in vector["envelope"]]
    for event in events:
        origin = getattr(event, "origin", None)
        assert list(origin.envelope if origin else ()) == envelope
    assert [without_buffer_counts(said(event)) for event in events] == [
        without_buffer_counts(request) for request in vector["requests"]
    ]


@pytest.mark.parametrize("vector", load("malformed.json"))
def test_malformed_messages(vector: Vector) -> None:
    events = parse(vector)
    errors = [event.error for event in events if isinstance(event, Malformed)]
    assert [_error(error) for error in errors] == vector["errors"]
    assert all(error.details.outcome == "not_started" for error in errors)
    assert len(events) - len(errors) == vector.get("requests_served", 0)


def _error(error: messages.Error) -> dict[str, Any]:
    limit = {} if error.details.limit is None else {"limit": error.details.limit}
    return {"id": error.id, "code": error.code, **limit}


# --- JSON-RPC ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", load("jsonrpc.json", "requests"))
def test_json_requests(vector: Vector) -> None:
    is_batch, requests = decode(vector["text"].encode())
    assert is_batch == vector["batch"]
    assert [_json_request(request) for request in requests] == vector["requests"]


def _json_request(request: JsonRequest | BadRequest) -> dict[str, Any]:
    if isinstance(request, BadRequest):
        reply = json.loads(encode_reply(bad_request_error(request)))
        return {"id": reply["id"], "error": reply["error"]["code"]}
    quiet = {"notification": True} if request.is_notification else {}
    return {
        **quiet,
        "id": None if request.id is UNSET else request.id,
        "method": request.method,
        "params": json.loads(bytes(request.params)),
        "options": to_json(request.options),
    }


@pytest.mark.parametrize("vector", load("jsonrpc.json", "replies"))
def test_json_replies(vector: Vector) -> None:
    meaning = vector["meaning"]
    if meaning["kind"] == "result":
        body = Raw(json.dumps(meaning["value"], separators=(",", ":")).encode())
        message: BrokerMessage = messages.Result(meaning["id"], body)
    else:
        message = message_of(meaning)
    origin = Origin((), CODEC_JSON, silent=False, batch=0)
    sent = Egress(DEFAULT_LIMITS).messages(b"peer", [Send(b"peer", message, origin)])
    assert sent == [[vector["text"].encode()]]


# --- values --------------------------------------------------------------------------------------


def value_of(meaning: dict[str, Any]) -> Any:
    [(name, value)] = meaning.items()
    if name == "bytes":
        return bytes.fromhex(value)
    if name == "datetime":
        return datetime.fromisoformat(value)
    if name == "array":
        return numpy.array(value["values"], value["dtype"]).reshape(value["shape"])
    return float(value) if name == "float" else value


@pytest.mark.parametrize("vector", load("values.json"))
def test_values(vector: Vector) -> None:
    body = bytes.fromhex(vector["body"])
    buffers = [bytes.fromhex(buffer) for buffer in vector.get("buffers", ())]
    value = decode_value(body, buffers)
    expected = value_of(vector["meaning"])
    assert type(value) is type(expected)
    if isinstance(expected, numpy.ndarray):
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
        assert numpy.array_equal(value, expected)
    else:
        assert value == expected
    if "decode_only" not in vector:
        encoded, lifted = encode_value(expected)
        assert (encoded, [*lifted]) == (body, [])
