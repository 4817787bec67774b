"""JSON-RPC 2.0 for peers that have no msgpack: requests in, replies out.

Specified in PROTOCOL.md, "JSON-RPC". The params stay raw JSON; the worker decodes them. Our header
fields (`timeout_ms`, ...) are extra members of the request, our error fields stand in `error.data`.

Mirror: tests/broker/wire/test_jsonrpc.py.
"""

from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .codec import DECODE_ERRORS, shortened
from .errors import ErrorDetails
from .limits import BATCH_REQUESTS_MAX
from .messages import (
    BrokerMessage,
    Durability,
    Error,
    Options,
    Pong,
    RequestId,
    Result,
    Welcome,
)

NULL = Raw(b"null")

# Codes that JSON-RPC itself defines; all others are of its range for servers.
_CODES = {
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
}
_PARSE_ERROR = -32700
_PARSE_ERROR_PREFIX = "parse error: "  # JSON-RPC has a code of its own for it, our errors do not


class JsonRequest(msgspec.Struct, frozen=True, gc=False):
    """One request object; unknown members are ignored.

    Attributes:
        id: Absent in a notification, which gets no reply object.
        params: Raw JSON, an object (by name) or an array (by position).
        timeout_ms: As in `Options`, like the members after it.
    """

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = NULL
    id: RequestId | UnsetType = UNSET
    timeout_ms: float | None = None
    durability: Durability | None = None
    key: str | None = None
    priority: int | None = None
    affinity: str | None = None
    trace: str | None = None

    @property
    def is_notification(self) -> bool:
        """Whether it has no id, and so gets no reply object."""
        return self.id is UNSET

    @property
    def options(self) -> Options:
        """The header fields as a msgpack request would carry them."""
        return Options(
            timeout_ms=self.timeout_ms,
            durability=self.durability,
            key=self.key,
            priority=self.priority,
            affinity=self.affinity,
            trace=self.trace,
        )


class BadRequest(msgspec.Struct, frozen=True):
    """A request object that can't be processed."""

    message: str
    id: RequestId = None


class _Reply(msgspec.Struct, frozen=True, gc=False):
    jsonrpc: str
    id: RequestId
    result: Raw


class _ErrorObject(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: dict[str, Any] | UnsetType = UNSET


class _ErrorReply(msgspec.Struct, frozen=True):
    jsonrpc: str
    id: RequestId
    error: _ErrorObject


class _IdOnly(msgspec.Struct):
    id: RequestId = None


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(JsonRequest).decode
_decode_id = msgspec.json.Decoder(_IdOnly).decode


@cache
def _batch_decoder() -> msgspec.json.Decoder[Any]:
    """Make the decoder of a batch; 2 ms, so not before the first batch comes.

    A struct with a field for each request, because that refuses the first one too many at once: a
    list of 16 MiB of ``1,`` took 1.5 s and 600 MB before its length was looked at.
    """
    fields = [(f"r{index}", Raw, Raw(b"")) for index in range(BATCH_REQUESTS_MAX)]
    batch = msgspec.defstruct("Batch", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(batch)


def decode(frame: bytes) -> tuple[bool, list[JsonRequest | BadRequest]]:
    """Decode a JSON frame: whether it is a batch, and its requests in order.

    Never raises; whatever can't be processed is a `BadRequest` in its place.
    """
    if not frame.startswith(b"["):
        return False, [_decode_one(frame)]
    try:
        items = msgspec.structs.astuple(_batch_decoder().decode(frame))
    except msgspec.ValidationError:
        return False, [BadRequest(f"a batch has at most {BATCH_REQUESTS_MAX} requests")]
    except DECODE_ERRORS as error:
        return False, [_no_json(error)]
    requests = [_decode_one(bytes(item)) for item in items if len(item)]
    if not requests:
        return False, [BadRequest("an empty batch is not a request")]
    return True, requests


def peek_id(frame: bytes) -> RequestId:
    """Read the id of a request object that is not valid; `None` where there is none to be read."""
    try:
        return _decode_id(frame).id
    except DECODE_ERRORS:
        return None


def encode_reply(message: BrokerMessage) -> bytes:
    """Encode a terminal reply as a JSON-RPC response object.

    The value of a `Result` has to be raw JSON already.
    """
    match message:
        case Result(id=id_, value=value):
            return _encode(_Reply("2.0", id_, value))
        case Error():
            return encode_error(message)
        case Pong(id=id_, epoch=epoch):
            return _encode(_Reply("2.0", id_, Raw(_encode({"epoch": epoch}))))
        case Welcome(id=id_, info=info):
            return _encode(_Reply("2.0", id_, Raw(_encode(info))))
    raise AssertionError(f"no JSON-RPC request is answered by {type(message).__name__}")


def encode_error(error: Error) -> bytes:
    """Encode an error as a response object, our own fields in its ``data``."""
    data = {"code": error.code, **msgspec.to_builtins(error.details)}
    code = _CODES.get(error.code, -32603)
    if error.code == "PROTOCOL_ERROR" and error.message.startswith(_PARSE_ERROR_PREFIX):
        code = _PARSE_ERROR
    return _encode(_ErrorReply("2.0", error.id, _ErrorObject(code, error.message, data)))


def to_error(bad: BadRequest) -> Error:
    """Make the error that answers what was no request."""
    return Error(bad.id, "PROTOCOL_ERROR", bad.message, ErrorDetails(outcome="not_started"))


def join_batch(replies: list[bytes]) -> bytes:
    """Make the one reply array of a batch; no bytes where every request was a notification."""
    return b"[" + b",".join(replies) + b"]" if replies else b""


def _decode_one(frame: bytes) -> JsonRequest | BadRequest:
    try:
        return _decode_request(frame)
    except msgspec.ValidationError as error:
        return BadRequest(f"invalid request: {shortened(str(error))}", id=peek_id(frame))
    except DECODE_ERRORS as error:
        return _no_json(error)


def _no_json(error: Exception) -> BadRequest:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return BadRequest(_PARSE_ERROR_PREFIX + reason)
