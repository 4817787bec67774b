"""Traces: which calls came when, as ``serve --record`` keeps them. Specified in TRACE.md. Pure.

Mirror: tests/broker/wire/test_trace.py.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Raw

from .codec import DECODE_ERRORS
from .errors import InvalidArgumentError
from .link import LENGTH, FrameReader, StreamError
from .messages import NIL

TRACE_FORMAT: Final = "pronghorn-trace/1"

PARAMS_BYTES_MAX: Final = 64 * 1024
"""Larger parameters are recorded with their size only. Buffers have more by themselves."""

RECORD_BYTES_MAX: Final = PARAMS_BYTES_MAX + 16 * 1024
"""Of one record; the rest is the name of its node, which the table bounds."""

PARAMS_LEFT_OUT: Final = 0
PARAMS_MSGPACK: Final = 1
PARAMS_JSON: Final = 2


class TraceStart(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """``[1, format, epoch, at_ns, wall_ns]``: a broker begins to record; both clocks at once.

    The first record, and another whenever a new broker has taken the place of one that ended.
    """

    format: str
    epoch: str
    at_ns: int
    wall_ns: int


class Arrival(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """``[2, at_ns, client, node, size, items, codec, params]``: a call, or a chunk, has come.

    Attributes:
        at_ns: Of the host's monotonic clock.
        client: Number of its connection, from 1 on in each epoch.
        node: Full name of the node.
        size: Bytes of its frame and buffers.
        items: How many a chunk has; -1 for a call.
        codec: What `params` is: nothing, msgpack, or JSON in a msgpack ``bin``.
        params: Parameters of the call; of a chunk an array of them.
    """

    at_ns: int
    client: int
    node: str
    size: int
    items: int = -1
    codec: int = PARAMS_LEFT_OUT
    params: Raw = NIL


class Lost(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """``[3, count]``: so many calls that came before the next record could not be recorded."""

    count: int


TraceRecord = TraceStart | Arrival | Lost

_ARRIVAL_TAG: Final = 2  # the byte behind that of the array
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TraceRecord).decode


def pack_record(record: TraceRecord) -> bytes:
    """Encode a record with its length."""
    body = _encode(record)
    return LENGTH.pack(len(body)) + body


def whole_records(data: bytes) -> int:
    """Tell how many bytes from the beginning are whole records."""
    position, end = 0, len(data)
    while position + LENGTH.size <= end:
        stop: int = position + LENGTH.size + LENGTH.unpack_from(data, position)[0]
        if stop > end:
            break
        position = stop
    return position


def count_calls(data: bytes) -> int:
    """Count the calls and chunks among whole records, without decoding them."""
    position = count = 0
    while position < len(data):
        count += data[position + LENGTH.size + 1] == _ARRIVAL_TAG
        position += LENGTH.size + LENGTH.unpack_from(data, position)[0]
    return count


def read_trace(pieces: Iterable[bytes], origin: str) -> Iterator[TraceRecord]:
    """Give the records of a trace; a last one that is torn, as by a full disk, is passed over.

    Args:
        pieces: Its bytes, cut anywhere.
        origin: What errors call it.

    Raises:
        InvalidArgumentError: It is no trace, or is damaged.
    """
    reader = FrameReader(RECORD_BYTES_MAX)
    is_empty = True
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                record = _decode(frame)
                if is_empty or isinstance(record, TraceStart):
                    _check_start(record, origin)
                is_empty = False
                yield record
    except (StreamError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(
            f"{origin} is no trace of pronghorn serve --record, or is damaged: {error}"
        ) from error
    if is_empty:
        raise InvalidArgumentError(f"{origin} is no trace of pronghorn serve --record: it is empty")


def _check_start(record: TraceRecord, origin: str) -> None:
    if not isinstance(record, TraceStart):
        raise InvalidArgumentError(f"{origin} is no trace of pronghorn serve --record")
    if record.format != TRACE_FORMAT:
        raise InvalidArgumentError(
            f"{origin} is of format {record.format!r}; this reads {TRACE_FORMAT!r}"
        )
