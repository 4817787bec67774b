"""From the frames of one ZeroMQ message to requests, and from messages to frames.

Specified in PROTOCOL.md, "Grammar". Pure; knows nothing of sockets or of routing ids. Whatever the
bytes are, the only error that leaves here is a `ProtocolError` or `UnimplementedError`.

Mirror: tests/broker/wire/test_codec.py.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from .errors import PronghornError, ProtocolError, UnimplementedError
from .limits import (
    ENVELOPE_FRAMES_MAX,
    KINDS_PER_VERSION,
    PROTOCOL_VERSION,
    QUOTED_CHARACTERS_MAX,
)
from .messages import (
    REQUEST_BUNDLE_START,
    BrokerMessage,
    ClientMessage,
    ReplyBundle,
    RequestBundle,
    RequestId,
)

JSON_FIRST_BYTES = b"{["  # both are small integers in msgpack, which no request begins with

# A body that can't be decoded raises one of these: msgspec's own errors are ValueErrors (as are bad
# UTF-8 and the rest), deep nesting is a RecursionError.
DECODE_ERRORS = (ValueError, RecursionError, OverflowError)

encode_message = msgspec.msgpack.Encoder().encode
_client_decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_bundle_decoder = msgspec.msgpack.Decoder(RequestBundle)
_broker_decoder: msgspec.msgpack.Decoder[BrokerMessage | ReplyBundle] = msgspec.msgpack.Decoder(
    BrokerMessage | ReplyBundle
)
_raw_bundle_decoder = msgspec.msgpack.Decoder(tuple[int, list[Raw]])
_BUNDLE_HEADER = len(REQUEST_BUNDLE_START)
_decode_client = _client_decoder.decode
_decode_broker = _broker_decoder.decode


def split_envelope(frames: Sequence[bytes]) -> tuple[tuple[bytes, ...], Sequence[bytes]]:
    """Split a message's frames into its envelope, empty frame included, and the rest.

    Requests and buffers are never empty, so an empty frame ends an envelope, unless the message
    begins with a request: then it is a mistake, and is left among the rest.

    Raises:
        ProtocolError: The empty frame comes later than an envelope may be long.
    """
    try:
        end = frames.index(b"") + 1
    except ValueError:
        return (), frames
    if end > 1 and not _is_correlation(frames, end) and _is_request(frames[0]):
        return (), frames
    if end > ENVELOPE_FRAMES_MAX:
        raise ProtocolError(
            f"frame {end - 1} is empty: requests and buffers never are, and an envelope "
            f"has at most {ENVELOPE_FRAMES_MAX} frames"
        )
    return tuple(frames[:end]), frames[end:]


def decode_request(frame: bytes) -> ClientMessage:
    """Decode one msgpack request, not a bundle.

    Raises:
        ProtocolError: The frame can't be read, or a header field is of the wrong type.
        UnimplementedError: It is of another protocol version or of an unknown kind.
    """
    try:
        return _decode_client(frame)
    except DECODE_ERRORS as error:
        raise _explain(frame, error) from error


def decode_reply(frame: bytes) -> BrokerMessage | ReplyBundle:
    """Decode one msgpack message of a broker; errors as in `decode_request`."""
    try:
        return _decode_broker(frame)
    except DECODE_ERRORS as error:
        raise _explain(frame, error) from error


def is_bundle(frame: bytes) -> bool:
    """Whether a frame is a bundle of requests."""
    return frame.startswith(REQUEST_BUNDLE_START)


def bundle_length(frame: bytes) -> int:
    """Read how many messages a bundle says it holds without decoding it; 0 if it is none."""
    return array_length(memoryview(frame)[_BUNDLE_HEADER:])


def array_length(body: bytes | memoryview | Raw) -> int:
    """Read from its header how many values an array has; 0 if it is none."""
    header = bytes(memoryview(body)[:5])
    if not header:
        return 0
    first = header[0]
    if 0x90 <= first <= 0x9F:
        return first & 0x0F
    return int.from_bytes(header[1 : _ARRAY_HEADERS.get(first, 1)], "big")


def is_array(body: bytes | memoryview | Raw) -> bool:
    """Whether a value is an array."""
    first = memoryview(body)[0]
    return 0x90 <= first <= 0x9F or first in _ARRAY_HEADERS


def array_body(body: bytes | memoryview | Raw) -> bytes:
    """Return what is behind the header of an array: its values, one after the other."""
    whole = memoryview(body)
    return bytes(whole[_ARRAY_HEADERS.get(whole[0], 1) :])


def decode_bundle(frame: bytes) -> list[ClientMessage]:
    """Decode a bundle whose messages are all well-formed; errors as in `decode_request`."""
    try:
        return _bundle_decoder.decode(frame).messages
    except DECODE_ERRORS as error:
        raise _explain(frame, error) from error


def split_bundle(frame: bytes) -> list[bytes]:
    """Split a bundle of which not all messages can be decoded.

    Raises:
        ProtocolError: Not even its parts can be told apart.
    """
    try:
        return [bytes(message) for message in _raw_bundle_decoder.decode(frame)[1]]
    except DECODE_ERRORS as error:
        raise _explain(frame, error) from error


def peek_id(frame: bytes) -> RequestId:
    """Read the id of a request whose frame can't be decoded; `None` where there is none to be read.

    It is the second element of the array, so it can be read of a frame that is cut off or whose
    params are damaged; that makes the error reply find its request.
    """
    return _peek(frame)[1]


def peek_buffers(frame: bytes) -> int:
    """Read how many buffers a request names that can't be decoded; 0 where it can't be told.

    In every request that owns buffers, whatever its version and kind, the options are the fifth
    element. So what such a request owns is skipped with it and not taken for requests.
    """
    try:
        return _decode_fifth(frame).options.buffers
    except DECODE_ERRORS:
        return 0


class _BuffersOnly(msgspec.Struct):
    buffers: int = 0


class _Fifth(msgspec.Struct, array_like=True):
    kind: Raw
    id: Raw
    name: Raw
    body: Raw
    options: _BuffersOnly


_decode_fifth = msgspec.msgpack.Decoder(_Fifth).decode
_skim_json = msgspec.json.Decoder(Raw).decode


def _is_correlation(frames: Sequence[bytes], end: int) -> bool:
    """Whether the first frame is the counter that REQ_CORRELATE adds: any four bytes."""
    return end == 2 and len(frames[0]) == 4


def _is_request(frame: bytes) -> bool:
    try:
        if frame[0] in JSON_FIRST_BYTES:
            _skim_json(frame)
        else:
            _decode_client(frame)
    except DECODE_ERRORS:
        return False
    return True


def _explain(frame: bytes, error: Exception) -> PronghornError:
    kind, _ = _peek(frame)
    if isinstance(error, RecursionError):
        return ProtocolError("the frame is nested too deeply")
    if kind is None:
        return ProtocolError(
            "not a request: a frame is a msgpack array [kind, id, ...] or JSON-RPC 2.0"
        )
    version, number = divmod(kind, KINDS_PER_VERSION)
    if version != PROTOCOL_VERSION:
        return UnimplementedError(
            f"unknown protocol version {version} (kind {kind}): "
            f"this side speaks version {PROTOCOL_VERSION}"
        )
    text = str(error)
    if text.endswith("`$[0]`"):
        return UnimplementedError(f"unknown message kind {kind} (number {number})")
    return ProtocolError(f"malformed message of kind {kind}: {shortened(text)}")


def shortened(text: str) -> str:
    """Cut a text that may quote what a peer has sent."""
    if len(text) <= QUOTED_CHARACTERS_MAX:
        return text
    half = QUOTED_CHARACTERS_MAX // 2
    return f"{text[:half]} ... {text[-half:]}"


def _peek(frame: bytes) -> tuple[int | None, RequestId]:
    """Read kind and id by hand from the first bytes of a msgpack array."""
    if not frame or not (0x91 <= frame[0] <= 0x9F or frame[0] in _ARRAY_HEADERS):
        return None, None
    kind, position = _peek_scalar(frame, _ARRAY_HEADERS.get(frame[0], 1))
    if type(kind) is not int or kind < 0:
        return None, None
    return kind, _peek_scalar(frame, position)[0]


_ARRAY_HEADERS = {0xDC: 3, 0xDD: 5}  # first byte of a long array -> length of its header


def _peek_scalar(frame: bytes, position: int) -> tuple[int | str | None, int]:
    """Read an integer or a string; `None` for all else and where the frame ends."""
    first = frame[position] if position < len(frame) else 0xC1
    start = position + 1
    if first <= 0x7F:
        return first, start
    if first >= 0xE0:
        return first - 0x100, start
    if 0xA0 <= first <= 0xBF:
        return _peek_text(frame, start, first & 0x1F)
    if 0xCC <= first <= 0xD3:  # unsigned, then signed, of 1, 2, 4 and 8 bytes
        return _peek_number(frame, start, 1 << (first & 3), signed=first >= 0xD0)
    if first in (0xD9, 0xDA):
        length, start = _peek_number(frame, start, first - 0xD8, signed=False)
        return (None, start) if length is None else _peek_text(frame, start, length)
    return None, start


def _peek_number(frame: bytes, start: int, length: int, *, signed: bool) -> tuple[int | None, int]:
    stop = start + length
    if stop > len(frame):
        return None, stop
    return int.from_bytes(frame[start:stop], "big", signed=signed), stop


def _peek_text(frame: bytes, start: int, length: int) -> tuple[str | None, int]:
    stop = start + length
    if stop > len(frame):
        return None, stop
    try:
        return frame[start:stop].decode(), stop
    except UnicodeDecodeError:
        return None, stop
