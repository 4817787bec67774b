"""The private link between broker and worker: messages and framing over a stream socket.

A link is one AF_UNIX stream that the supervisor makes before the worker starts. A frame is a
little-endian u32 length and that many bytes: a msgpack array whose first element is the kind. A
message with `buffers` n owns the next n frames, which are raw bytes. The link is not part of the
public protocol; both ends always come from the same installation.

Why not ZeroMQ here: a ZeroMQ hop adds an I/O thread to each end, so two more wake-ups, and `send()`
only hands a message to that thread: a worker killed right after it loses the result. Bytes written
to a socket pair survive their writer. Measured by ``scripts/bench links``.

Mirror: tests/broker/wire/test_link.py.
"""

from collections.abc import Callable, Sequence
from struct import Struct as Layout
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Raw

from .errors import ErrorDetails
from .limits import KIB
from .messages import ItemFailure

Buffer = bytes | bytearray | memoryview

CODEC_MSGPACK: Final = 0
CODEC_JSON: Final = 1

LENGTH: Final = Layout("<I")
_LENGTH_BYTES: Final = LENGTH.size
assert _LENGTH_BYTES == 4
_unpack_length = LENGTH.unpack_from
_NO_BUFFERS: Final[Sequence[bytes]] = ()
FRAME_BYTES_MAX: Final = 2**32 - 1


class RunCall(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Broker to worker: run the node of that index in the table; `left_ms` is the time left.

    With `CODEC_JSON` the params are a msgpack ``bin`` that holds JSON, as is the result's value.
    """

    token: int
    slot: int
    node: int
    codec: int
    params: Raw
    left_ms: float | None = None
    buffers: int = 0
    depth: int = 0  # how many calls of nodes it lies within


class RunChunk(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Broker to worker: run a node once per item, in order."""

    token: int
    slot: int
    node: int
    items: Raw
    left_ms: float | None = None


class CancelRun(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Broker to worker: cancel a request that has begun; its terminal message still comes."""

    token: int


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Broker to worker: finish what has begun, then exit."""


class NestedDone(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Broker to worker: a call that a node made has its result."""

    id: int
    value: Raw
    buffers: int = 0


class NestedFailed(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Broker to worker: a call that a node made has failed."""

    id: int
    code: str
    message: str
    details: ErrorDetails


class RunHere(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Broker to worker: nobody has room for a call that a node made, so run it in its caller."""

    id: int


class HistoryPart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record of what a run of a workflow has come through.

    Attributes:
        sequence: Its number.
        value: As `Advance` had it; nil where the run was reopened.
        buffers: How many of the message's buffers belong to it, after those of the parts before.
    """

    sequence: int
    value: Raw
    buffers: int


class History(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Broker to worker: answers `AskHistory`.

    Attributes:
        token: Of the request.
        parts: An array of `HistoryPart`.
        is_last: Whether no further parts follow.
        problem: Why the journal can't tell; "" if it does.
        buffers: As the parts say.
    """

    token: int
    parts: Raw
    is_last: bool
    problem: str = ""
    buffers: int = 0


class RunStream(RunCall, frozen=True, array_like=True, tag=10, gc=False):
    """Broker to worker: as `RunCall`, and the caller takes parts, events or both.

    `takes_parts` tells that the node's parts are sent one by one; what may be sent before there is
    more credit are so many `items` of `bytes` together, and so many `events`.
    """

    takes_parts: bool = False
    items: int = 0
    bytes: int = 0
    events: int = 0


class MoreCredit(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Broker to worker: so much more may be sent for a request."""

    token: int
    items: int
    bytes: int
    events: int


class AskAlive(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Broker to worker, which seems to be blocked: say `Alive` after all that came before this."""


class AdvanceKept(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Broker to worker: an `Advance` that asked for it is kept, and all before it."""

    token: int


class Recorded(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Broker to worker, right before the request with that token: it is an attempt of a run.

    How far it comes is to be told by `Advance`.

    Attributes:
        token: Of the request.
        run: Id of the run, for who controls it.
        has_history: Whether something may be recorded of it: to be asked for first.
    """

    token: int
    run: str
    has_history: bool


class TraceContext(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """Broker to worker, right before the request with that token: the traceparent of its caller."""

    token: int
    traceparent: str


class RunContext(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Broker to worker, right before the request with that token: it is an attempt of a run.

    Attributes:
        token: Of the request.
        run_id: Id of the run.
        attempt: Number of the attempt, from 1.
        fence: Higher with each attempt of the run: the number of the record that began it.
    """

    token: int
    run_id: str
    attempt: int
    fence: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Worker to broker, first of all: its dispatch table stands."""

    worker_id: int
    pid: int
    table_digest: str


class Done(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Worker to broker: the node returned. `run_ns` is its run time alone."""

    token: int
    value: Raw
    run_ns: int
    buffers: int = 0


class ChunkDone(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """Worker to broker: a chunk has ended; nil stands in `values` where an item failed."""

    token: int
    values: Raw
    run_ns: int
    item_count: int
    failures: tuple[ItemFailure, ...] | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """Worker to broker: the request failed."""

    token: int
    code: str
    message: str
    details: ErrorDetails
    run_ns: int = 0


class Skipped(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Worker to broker: the request was not begun, because it was revoked."""

    token: int


class Nested(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """Worker to broker: a node makes a call.

    `parent` is the token of the request that it runs for; `waits` tells that the worker does
    nothing else until it has the answer.
    """

    id: int
    parent: int
    node: str
    params: Raw
    left_ms: float | None
    waits: bool
    depth: int
    buffers: int = 0
    traceparent: str | None = None


class CancelNested(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """Worker to broker: nobody waits for that call any more."""

    id: int


class Yielded(msgspec.Struct, frozen=True, array_like=True, tag=24, gc=False):
    """Worker to broker: a streaming node has yielded a part."""

    token: int
    value: Raw
    buffers: int = 0


class Progressed(msgspec.Struct, frozen=True, array_like=True, tag=25, gc=False):
    """Worker to broker: how far a node is, for a caller that takes events."""

    token: int
    done: float
    total: float | None
    message: str


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Worker to broker: it has come to an `AskAlive`; what it was given before it has begun."""


class Emitted(msgspec.Struct, frozen=True, array_like=True, tag=26, gc=False):
    """Worker to broker: an event of a node, for a caller that takes them."""

    token: int
    name: str
    value: Raw


class AskHistory(msgspec.Struct, frozen=True, array_like=True, tag=30, gc=False):
    """Worker to broker: what was recorded of the run of that request, behind a record."""

    token: int
    after: int


class Advance(msgspec.Struct, frozen=True, array_like=True, tag=31, gc=False):
    """Worker to broker: to be recorded of the run of that request; see `journal.record.Advanced`.

    `asks` tells that `AdvanceKept` is wanted.
    """

    token: int
    value: Raw
    tasks: tuple[tuple[str, str], ...]
    moved: bool
    asks: bool
    buffers: int = 0


class Rest(msgspec.Struct, frozen=True, array_like=True, tag=32, gc=False):
    """Worker to broker: the run of that request has nothing to do until an order, or a time.

    So its request ends next, and is given out again then.

    Attributes:
        left_s: Seconds until that time; None if only an order changes anything.
    """

    token: int
    left_s: float | None


ToWorker = (
    RunCall
    | RunChunk
    | CancelRun
    | Stop
    | NestedDone
    | NestedFailed
    | RunHere
    | RunStream
    | MoreCredit
    | AskAlive
    | TraceContext
    | RunContext
    | Recorded
    | AdvanceKept
    | History
)
ToBroker = (
    Ready
    | Done
    | ChunkDone
    | Failed
    | Skipped
    | Nested
    | CancelNested
    | Yielded
    | Progressed
    | Emitted
    | Alive
    | Advance
    | AskHistory
    | Rest
)

encode_link = msgspec.msgpack.Encoder().encode
_decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode
_decode_to_broker = msgspec.msgpack.Decoder(ToBroker).decode


def wrap_json(text: Raw | bytes) -> Raw:
    """Put raw JSON into a field of a link's message."""
    return Raw(encode_link(bytes(text)))


def unwrap_json(value: Raw) -> bytes:
    """Take raw JSON out of a field of a link's message."""
    return _decode_bytes(value)


def pack(message: ToWorker | ToBroker, buffers: Sequence[Buffer] = ()) -> bytes:
    """Encode one message and its buffers as the bytes to write to the link."""
    body = encode_link(message)
    if not buffers:
        return LENGTH.pack(len(body)) + body
    parts: list[Buffer] = [LENGTH.pack(len(body)), body]
    for buffer in buffers:
        parts.append(LENGTH.pack(memoryview(buffer).nbytes))
        parts.append(buffer)
    return b"".join(parts)


class StreamError(ValueError):
    """The other end of a stream has announced more than is taken in."""


class FrameReader:
    """Cuts a byte stream into frames; pure, fed by whoever reads the socket.

    Bytes of an unfinished frame are kept until the rest comes; a large frame is collected in pieces
    and joined once, so that its cost stays linear.

    Args:
        frame_bytes_max: Longest frame that is waited for.
    """

    __slots__ = ("_frame_bytes_max", "missing", "pieces")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self.pieces: list[bytes] = []  # of an unfinished frame, with its length prefix
        self.missing = 0  # bytes that the pieces still lack, as far as is known

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes, give back the frames that are now complete, in order.

        Raises:
            StreamError: A frame is longer than is waited for; the reader is of no use then.
        """
        if self.pieces:
            self.pieces.append(data)
            self.missing -= len(data)
            if self.missing > 0:
                return []
            data = b"".join(self.pieces)
            self.pieces.clear()
            self.missing = 0
        elif len(data) >= 4 and _unpack_length(data)[0] == len(data) - 4:
            return [data[4:]]  # exactly one, as when one call is made at a time
        frames: list[bytes] = []
        position = 0
        end = len(data)
        while position + _LENGTH_BYTES <= end:
            body = position + _LENGTH_BYTES
            stop = body + _unpack_length(data, position)[0]
            if stop > end:
                break
            frames.append(data[body:stop])
            position = stop
        if position < end:
            rest = data[position:]
            self.pieces.append(rest)
            wanted = LENGTH.size
            if len(rest) >= LENGTH.size:
                length = _unpack_length(rest)[0]
                if length > self._frame_bytes_max:
                    raise StreamError(f"a frame of {length} bytes is announced")
                wanted += length
            self.missing = wanted - len(rest)
        return frames


READ_BYTES_MIN: Final = 16 * KIB
READ_BYTES_MAX: Final = 112 * KIB
"""Below glibc's 128 KiB, from which on memory is mapped and unmapped for each read: of 64 KiB there
and back that was a third of the time."""


def next_read_bytes(asked: int, got: int) -> int:
    """Choose how much to ask of a link's socket next: much only while much is coming.

    The buffer is allocated for each read, whatever comes.
    """
    if got == asked:
        return READ_BYTES_MAX
    return asked if got > READ_BYTES_MIN else READ_BYTES_MIN


def next_stream_bytes(asked: int, got: int, missing: int, frames: Sequence[bytes]) -> int:
    """Choose how much to ask of a client's stream next: little, unless its frames are large.

    So that a flood of small requests leaves time for others between two reads.

    Args:
        asked: What was asked last.
        got: What came.
        missing: What the frame that was begun still lacks.
        frames: Those that are complete.
    """
    if missing > READ_BYTES_MIN:
        return min(missing, READ_BYTES_MAX)
    if asked == READ_BYTES_MIN and got < asked:
        return asked
    # Who sends one large frame sends more of them.
    return min(len(frames[-1]) + READ_BYTES_MIN, READ_BYTES_MAX) if frames else READ_BYTES_MIN


Message = TypeVar("Message")


BUFFERS_MAX: Final = 2**16 - 1
"""Most buffers of a message. A client's limit on those of a request is far below; the number is
what the other end says, whose memory may have been overwritten."""


class MessageReader(Generic[Message]):
    """Cuts a byte stream into messages with their buffers."""

    __slots__ = ("_buffers", "_decode", "_frames", "_owner")

    def __init__(self, decode: Callable[[Buffer], Message]) -> None:
        self._decode = decode
        self._frames = FrameReader()
        self._owner: Message | None = None  # a message whose buffers have not all come
        self._buffers: list[bytes] = []  # those that have

    def feed(
        self, data: bytes, messages: list[tuple[Message, Sequence[bytes]]] | None = None
    ) -> list[tuple[Message, Sequence[bytes]]]:
        """Take in bytes, give back the messages that are now complete, in order.

        Args:
            data: What has come.
            messages: What they are added to, if given: who gives it has those before an error, too.

        Raises:
            StreamError: A frame is too long, or a message says that it has buffers without number.
            ValueError, RecursionError, OverflowError: A message can't be decoded. The reader is of
                no use then.
        """
        if (  # exactly one frame, as when one call is made at a time
            messages is None
            and self._owner is None
            and not self._frames.pieces
            and len(data) >= 4
            and _unpack_length(data)[0] == len(data) - 4
        ):
            message = self._decode(data[4:])
            if getattr(message, "buffers", 0):
                self._owner = _checked(message)
                return []
            return [(message, _NO_BUFFERS)]
        if messages is None:
            messages = []
        for frame in self._frames.feed(data):
            if self._owner is None:
                message = self._decode(frame)
                if getattr(message, "buffers", 0):
                    self._owner = _checked(message)
                else:
                    messages.append((message, []))
                continue
            self._buffers.append(frame)
            if len(self._buffers) == getattr(self._owner, "buffers", 0):
                messages.append((self._owner, self._buffers))
                self._owner, self._buffers = None, []
        return messages


def _checked(message: Message) -> Message:
    """Return a message that has buffers, as many as there can be."""
    count: int = getattr(message, "buffers", 0)
    if not 0 < count <= BUFFERS_MAX:
        raise StreamError(f"a message with {count} buffers is announced")
    return message


def broker_end() -> MessageReader[ToBroker]:
    """Make the reader for the broker's end of a link."""
    return MessageReader(_decode_to_broker)


def worker_end() -> MessageReader[ToWorker]:
    """Make the reader for the worker's end of a link."""
    return MessageReader(_decode_to_worker)
