"""The messages between clients and broker, as values. Specified in PROTOCOL.md, "Messages".

Each is a msgpack array whose first element, the kind, is ``version * 32 + number``. Parameters and
results stay raw bytes (`msgspec.Raw`): the broker routes on the header and never decodes a body.

Mirror: tests/broker/wire/test_messages.py.
"""

from typing import Literal

import msgspec
from msgspec import Raw

from .errors import ErrorDetails
from .limits import KINDS_PER_VERSION, PROTOCOL_VERSION, Limits

_V1 = PROTOCOL_VERSION * KINDS_PER_VERSION
NIL = Raw(b"\xc0")

RequestId = int | str | None
"""Chosen by the client, unique among its open requests; `None` only where no reply is expected."""

Durability = Literal["none", "batched", "sync"]


class Options(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The optional header fields of a request; a map, unknown keys are ignored.

    Attributes:
        timeout_ms: Time left until the caller gives up, milliseconds; no deadline when absent.
        buffers: Number of buffer frames that follow the request's frame and belong to it.
        durability: What is promised of the end of the call or run; the node's own when absent.
        key: Idempotency key: of several requests of the same one there is one run.
        priority: Band 0 (first) to 3.
        affinity: Requests with the same affinity go to the same worker.
        trace: W3C traceparent, handed to the node; a malformed one is ignored.
        times: Whether `Times` are wanted with the terminal reply.
        items: Of a `Run`: its params are those of many items, for each of which the node is run.
        value_ref: Reserved: parameters by reference instead of by value.
        stream: The caller takes parts; the credit ``[items, bytes]`` that they begin with; bytes
            are nil where the broker is to count them.
        events: So many messages about its progress and of its events the caller takes at first.
    """

    timeout_ms: float | None = None
    buffers: int = 0
    durability: Durability | None = None
    key: str | None = None
    priority: int | None = None
    affinity: str | None = None
    trace: str | None = None
    value_ref: str | None = None
    stream: tuple[int, int | None] | None = None
    events: int | None = None
    times: bool = False
    items: bool = False


NO_OPTIONS = Options()


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 1):
    """``[33, id, client, session]``: opens a session. Answered by `Welcome`.

    `client` names the peer's program and version, for people; `session` is reserved for taking up
    an earlier session again.
    """

    id: RequestId
    client: str = ""
    session: bytes | None = None


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 2):
    """``[34, id]``: ends the session; what is open is cancelled. Not answered."""

    id: RequestId = None


class Call(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 3, gc=False):
    """``[35, id, node, params, options]``: run a node once. Answered by `Result` or `Error`.

    `params` is a map (by name), an array (by position) or nil.
    """

    id: RequestId
    node: str
    params: Raw = NIL
    options: Options | None = None


class MapChunk(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 4, gc=False):
    """``[36, id, node, items, options]``: run a node once per item of an array of params.

    Runs in one worker, in order. Answered by `MapResult` or `Error`.
    """

    id: RequestId
    node: str
    items: Raw
    options: Options | None = None


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 5, gc=False):
    """``[37, id]``: cancel that open request, which still gets its one terminal reply."""

    id: RequestId


class Credit(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 6, gc=False):
    """``[38, id, items, bytes, events]``: more credit for what an open call sends. Not answered.

    `bytes` is nil where the broker counts them: as many as the parts had that `items` gives back.
    """

    id: RequestId
    items: int
    bytes: int | None = None
    events: int = 0


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 7, gc=False):
    """``[39, replies]``: number of terminal replies read since the hello. Not answered."""

    replies: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 8, gc=False):
    """``[40, id]``: answered at once by `Pong`, by the broker itself."""

    id: RequestId


class Run(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 9, gc=False):
    """``[41, id, node, params, options]``: start a node and don't wait. Answered by `Result`.

    Its value is the run's `RunInfo` (runs.py), and comes when the acceptance of the run is kept.
    """

    id: RequestId
    node: str
    params: Raw = NIL
    options: Options | None = None


class Subscribe(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 10, gc=False):
    """``[42, id, topic, from_seq]``: reserved: events of a run."""

    id: RequestId
    topic: str
    from_seq: int = 0


class WelcomeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `Welcome`.

    Attributes:
        version: Protocol version the broker speaks.
        epoch: Changes with every start of the broker: what was open under another epoch is gone.
        server: Program and version, for people.
        pid: Process id of the broker, 0 when it does not tell.
        limits: See `Limits`.
    """

    version: int
    epoch: str
    server: str
    pid: int
    limits: Limits


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 16):
    """``[48, id, info]``: answers `Hello` (its id) and probes (id nil)."""

    id: RequestId
    info: WelcomeInfo


class Result(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 17, gc=False):
    """``[49, id, value, buffers]``: what the node returned; owns the next `buffers` frames."""

    id: RequestId
    value: Raw
    buffers: int = 0


class ItemFailure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``[index, code, message, details]``: one failed item of a chunk."""

    index: int
    code: str
    message: str
    details: ErrorDetails


class MapResult(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 18, gc=False):
    """``[50, id, values, failures, run_ms]``: results in item order, nil where `failures` has it.

    Where there are fewer than the chunk had items, at least one, the rest was not begun. `run_ms`
    is the run time of all items together, by which a client sizes its next chunks.
    """

    id: RequestId
    values: Raw
    failures: tuple[ItemFailure, ...] | None = None
    run_ms: float = 0.0


class Part(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 19, gc=False):
    """``[51, id, seq, value, buffers]``: a part of a stream, numbered from 0; owns the buffers."""

    id: RequestId
    seq: int
    value: Raw
    buffers: int = 0


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 20, gc=False):
    """``[52, id, done, total, message]``: how far a running call is, newer ones replace older."""

    id: RequestId
    done: float
    total: float | None = None
    message: str = ""


class Error(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 21, gc=False):
    """``[53, id, code, message, details]``: the request failed or could not be processed."""

    id: RequestId
    code: str
    message: str
    details: ErrorDetails


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 22, gc=False):
    """``[54, id, epoch]``: answers `Ping`."""

    id: RequestId
    epoch: str


class Event(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 23, gc=False):
    """``[55, id, seq, name, value]``: an event of a running call, numbered from 0."""

    id: RequestId
    seq: int
    name: str
    value: Raw


class Times(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 25, gc=False):
    """``[57, id, received, given, begun, ended, replied]``: where a request's time went.

    Comes before the terminal reply of a request that asked for it. Moments of the host's monotonic
    clock in ns: the broker has read it, given it to a worker; the node has begun, has ended; the
    broker has the reply. `None` for what did not come to that, or is not known.
    """

    id: RequestId
    received: int
    given: int | None
    begun: int | None
    ended: int | None
    replied: int


ClientMessage = Hello | Goodbye | Call | MapChunk | Cancel | Credit | Ack | Ping | Run | Subscribe
BrokerMessage = Welcome | Result | MapResult | Part | Progress | Error | Pong | Event | Times


class RequestBundle(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 11):
    """``[43, [request, ...]]``: several messages of a client in one frame; none has buffers.

    Of small requests most of the cost is the frame (1.1 us to receive and split off, 0.2 us to
    decode), so who has many open sends them so.
    """

    messages: list[ClientMessage]


class ReplyBundle(msgspec.Struct, frozen=True, array_like=True, tag=_V1 + 24):
    """``[56, [reply, ...]]``: several messages of the broker in one frame, for who said hello."""

    messages: list[BrokerMessage]


REQUEST_BUNDLE_START = bytes((0x92, _V1 + 11))
_REPLY_BUNDLE_START = bytes((0x92, _V1 + 24))


def bundle_requests(frames: list[bytes]) -> bytes:
    """Make one frame of requests that are encoded already."""
    return b"".join((REQUEST_BUNDLE_START, array_start(len(frames)), *frames))


def bundle_replies(frames: list[bytes]) -> bytes:
    """Make one frame of replies that are encoded already."""
    return b"".join((_REPLY_BUNDLE_START, array_start(len(frames)), *frames))


def array_start(length: int) -> bytes:
    """Encode the header of an array of that many values."""
    return b"\xdd" + length.to_bytes(4, "big")
