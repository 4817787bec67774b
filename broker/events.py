"""What goes into the broker's core and what comes out, as values.

Events come from the shell (server.py), from clients, workers and the supervisor; commands are for
the shell to carry out. Neither has behaviour.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from .journal.messages import Answer, Question
from .wire.administration import Order, OrderError, SeenWorker
from .wire.errors import PronghornError
from .wire.jsonrpc import JsonRequest
from .wire.link import Buffer, ToBroker, ToWorker
from .wire.messages import BrokerMessage, ClientMessage, Error, RequestId
from .wire.slots import SlotsPage
from .wire.table import NodeTable


class Origin(msgspec.Struct, frozen=True):
    """How a request came, where that is not the plain case of one msgpack frame of a DEALER.

    Attributes:
        envelope: Frames to echo before the reply, the empty one included.
        codec: `CODEC_MSGPACK` or `CODEC_JSON`.
        silent: A notification: it gets no reply, over an envelope an empty one.
        batch: Number of the JSON-RPC batch that it is part of, 0 for none.
        batch_size: Number of requests in that batch.
    """

    envelope: tuple[bytes, ...]
    codec: int
    silent: bool
    batch: int
    batch_size: int = 0


class Received(msgspec.Struct, frozen=True, gc=False):
    """A client's request has come; `size` is the bytes of its frame and buffers."""

    peer: bytes
    message: ClientMessage
    size: int
    origin: Origin | None = None
    buffers: Sequence[bytes] = ()


class ReceivedJson(msgspec.Struct, frozen=True):
    """A JSON-RPC request has come."""

    peer: bytes
    request: JsonRequest
    size: int
    origin: Origin


class Malformed(msgspec.Struct, frozen=True):
    """A client sent what can't be processed; `error` says so."""

    peer: bytes
    error: Error
    origin: Origin | None = None


class Denied(msgspec.Struct, frozen=True):
    """A client has asked for what its key may not do; `error` says so."""

    peer: bytes
    id: RequestId
    error: PronghornError
    origin: Origin | None = None


class Probed(msgspec.Struct, frozen=True):
    """A client has connected, or connected again (PROBE_ROUTER)."""

    peer: bytes


class PeerGone(msgspec.Struct, frozen=True):
    """A client is gone, or broke its grant (`banned`) and is ignored until it connects anew."""

    peer: bytes
    banned: bool = False


class TableKnown(msgspec.Struct, frozen=True):
    """The nodes that are served from now on, and whose workers get the requests.

    Workers of earlier generations get nothing more.
    """

    table: NodeTable
    generation: int = 0


class TableComing(msgspec.Struct, frozen=True):
    """Nodes that will be served; their workers are kept until then."""

    table: NodeTable
    generation: int


class WorkerStarting(msgspec.Struct, frozen=True):
    """A worker was started; its page is mapped, its link open.

    Attributes:
        worker_id: Its number.
        page: Its page of slots.
        generation: Of the nodes that it should have.
        look_requests: So many requests given to it make a `Look`; 0: none does.
        look_s: A `Look` is made so often as long as it is given requests, seconds; 0: never.
        labels: For nodes that need something special.
    """

    worker_id: int
    page: SlotsPage
    generation: int = 0
    look_requests: int = 0
    look_s: float = 0.0
    labels: frozenset[str] = frozenset()


class WorkerSent(msgspec.Struct, frozen=True, gc=False):
    """A worker's message has come."""

    worker_id: int
    message: ToBroker
    buffers: Sequence[bytes] = ()


class WorkerGone(msgspec.Struct, frozen=True):
    """A worker has ended, and all that it wrote was read; `stack` is what its crash has written."""

    worker_id: int
    cause: str
    stack: str = ""


class MemoryTight(msgspec.Struct, frozen=True):
    """The broker's memory went beyond its bound, or fell below again."""

    tight: bool


class WorkerRetired(msgspec.Struct, frozen=True):
    """A worker is to get nothing more and to end when it has finished what it has begun."""

    worker_id: int


class Administered(msgspec.Struct, frozen=True):
    """The supervisor has carried out an order, with that result, or could not: see `error`."""

    ticket: int
    value: Raw
    error: OrderError | None = None


class DrainBegun(msgspec.Struct, frozen=True):
    """All is about to end: no more requests of clients are accepted."""


class JournalWelcomed(msgspec.Struct, frozen=True):
    """A journal takes records.

    Attributes:
        acknowledged: Number up to which all records of this epoch are kept.
        refusing: Why nothing new is to be accepted, "" if it is.
        seed: What nobody can guess, for the ids of runs.
        clock_ns: Nanoseconds since 1970 at the zero of the monotonic clock.
    """

    acknowledged: int
    refusing: str
    seed: bytes
    clock_ns: int


class JournalCommitted(msgspec.Struct, frozen=True):
    """All records up to that number are kept; `clock_ns` as in `JournalWelcomed`."""

    through: int
    clock_ns: int


class JournalRefusing(msgspec.Struct, frozen=True):
    """Why nothing new is to be accepted that is to be recorded; "": it is again."""

    reason: str


class JournalGone(msgspec.Struct, frozen=True):
    """There is no journal: another is being started, or, if there is a `message`, that is why."""

    message: str = ""


class JournalRefused(msgspec.Struct, frozen=True):
    """The journal can't keep that record, nor has it kept any later one; it welcomes us again.

    `run` is the one that it is of.
    """

    sequence: int
    run: int
    why: str


class JournalBroke(msgspec.Struct, frozen=True):
    """The journal could do nothing with what it was sent, and has ended the stream."""

    why: str


class JournalAnswered(msgspec.Struct, frozen=True):
    """The journal has answered a question of this broker's."""

    answer: Answer
    buffers: Sequence[bytes] = ()


class Tick(msgspec.Struct, frozen=True):
    """The time that `BrokerCore.next_due` named has come."""


Event = (
    Received
    | ReceivedJson
    | Malformed
    | Denied
    | Probed
    | PeerGone
    | TableKnown
    | TableComing
    | WorkerStarting
    | WorkerSent
    | WorkerGone
    | MemoryTight
    | WorkerRetired
    | Administered
    | DrainBegun
    | JournalWelcomed
    | JournalCommitted
    | JournalRefusing
    | JournalGone
    | JournalRefused
    | JournalBroke
    | JournalAnswered
    | Tick
)


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message to a client; `batched` with others, if it said that it can read batches."""

    peer: bytes
    message: BrokerMessage
    origin: Origin | None = None
    buffers: Sequence[Buffer] = ()
    batched: bool = False


class Report(msgspec.Struct, frozen=True):
    """Send the statistics to a client that has asked for them, as the result of that call."""

    peer: bytes
    id: RequestId
    origin: Origin | None = None


class Assign(msgspec.Struct, frozen=True, gc=False):
    """Write a message to a worker's link."""

    worker_id: int
    message: ToWorker
    buffers: Sequence[bytes] = ()


class Kill(msgspec.Struct, frozen=True):
    """Have the supervisor end a worker that does not do what it should."""

    worker_id: int
    reason: str


class Look(msgspec.Struct, frozen=True):
    """Tell the supervisor how many requests a worker was given, so that it may look at it."""

    worker_id: int
    requests: int


class Administer(msgspec.Struct, frozen=True):
    """Have the supervisor carry out a client's order; `Administered` answers it."""

    ticket: int
    order: Order
    workers: tuple[SeenWorker, ...]


class Drained(msgspec.Struct, frozen=True):
    """Tell the supervisor that no client has a request open, and none will."""


class WantJournal(msgspec.Struct, frozen=True):
    """Have the supervisor open the journal; `JournalWelcomed` or `JournalGone` answers it."""


class WriteRecords(msgspec.Struct, frozen=True, gc=False):
    """Write records to the journal; before replies that leave with them.

    Attributes:
        records: Of each its frames: it and its buffers.
    """

    records: Sequence[Sequence[bytes]]


class AskJournal(msgspec.Struct, frozen=True):
    """Ask the journal something; `JournalAnswered` answers it, unless the journal ends before."""

    question: Question


class HurryJournal(msgspec.Struct, frozen=True):
    """Tell the journal to let the records so far gather no more; somebody may wait for them."""

    waited_for: bool = True


Command = (
    Send
    | Assign
    | Kill
    | Look
    | Administer
    | Drained
    | Report
    | WantJournal
    | WriteRecords
    | HurryJournal
    | AskJournal
)
