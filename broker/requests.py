"""The broker's records of nodes, sessions and requests. Pure.

What is written to at each call is no `msgspec.Struct`: setting an attribute of one takes 21 ns, of
a class with slots 6 ns. Requests are all the same, and runs: there it is the making that counts.

Mirror: tests/broker/test_requests.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from .events import Origin, Received, Send
from .gates import Gate
from .journal.fold import RunState
from .journal.record import Accepted, Ended, KeptDurability
from .quarantine import Record
from .queue import RoomKey
from .ranges import Cut, Ranges
from .retries import RetryBudget
from .statistics import NodeCounts
from .tracing import Tracing
from .wire.errors import PronghornError
from .wire.limits import PRIORITY_DEFAULT
from .wire.messages import NO_OPTIONS, Call, Options, RequestId
from .wire.messages import Run as RunMessage
from .wire.table import RetryPolicy

_decode_options = msgspec.msgpack.Decoder(Options | None).decode

Key = RequestId | tuple[int]
"""What a session knows an open request by: its id, or a number where it has no usable id."""


@dataclass(slots=True, eq=False)
class Node:
    """One node as the broker sees it."""

    index: int
    name: str
    concurrent: bool  # async or threaded: many run at once in a worker
    # whether a chunk's items run one after the other, each marked in the slot; async ones do not
    marks_items: bool = True
    estimate_ns: float | None = None  # of its run time; None until one was measured
    counts: NodeCounts = field(default_factory=NodeCounts)  # what is told of it
    streams: bool = False  # a generator, which yields parts
    # a generator that is driven in the worker's loop; the slot tells while it runs, for then it
    # holds up all that is beside it
    steps: bool = False
    retry: RetryPolicy | None = None  # None: it is never tried again
    budget: RetryBudget = field(default_factory=RetryBudget)  # of its retries
    record: Record = field(default_factory=Record)  # of the workers it has ended
    # monotonic seconds; 0 while it is not in quarantine, inf if no worker will have its labels
    refused_until: float = 0.0
    gate: Gate | None = None  # None: any number of its requests may run
    labels: frozenset[str] = frozenset()  # what a worker must have to run it
    hosted: bool = False  # whether only run hosts run it
    is_plain: bool = True  # whether it has neither
    served: bool = True  # False: there is none of its name any more, or another
    durability: KeptDurability | None = None  # of requests that say none
    at_most_once: bool = False  # whether a recorded run of it is never begun twice
    takes_context: bool = True  # whether it is told of which run it is an attempt
    recordable: bool = True  # whether requests of it can be recorded
    conducted: bool = False  # a workflow: a recorded request of it is a run, told of as it goes


@dataclass(slots=True, eq=False)
class Session:
    """What the broker knows of one connection of a client, named by its routing id."""

    peer: bytes
    grant: int  # most requests it may have open, replies that it has not acknowledged included
    known: bool = False  # whether it said hello
    conducts: bool = False  # whether it makes the calls of workflows
    # key -> request; a key is here iff the request has not got its terminal reply
    open: dict[Key, Request] = field(default_factory=dict)
    open_bytes: int = 0  # of the requests in `open`
    acknowledged: int = 0  # terminal replies since its hello that it says it has read
    unacknowledged: int = 0  # those that it has not; 0 for strangers, who acknowledge none
    replies_seen: int = -1  # all of them when it was last looked at; -1: not since its hello
    worker_id: int = 0  # whose nodes make calls here; 0 for a client's
    owner: str = ""  # whose runs it may see
    parts: int = 0  # parts and events that the requests in `open` may send ahead
    part_bytes: int = 0  # bytes of such parts

    @property
    def replies(self) -> int:
        """Terminal replies since its hello."""
        return self.acknowledged + self.unacknowledged


@dataclass(slots=True, eq=False)
class Flow:
    """What the caller of a request takes besides its terminal reply."""

    takes_parts: bool
    items: int  # parts that may still be sent
    bytes: int  # bytes of them; a part may go beyond, and then nothing is sent while it is below 1
    events: int  # events that may still be sent
    window: int = 0  # the most that `items` and `events` have been together
    window_bytes: int = 0  # the most that `bytes` has been
    seq: int = 0  # number of the next part
    event_seq: int = 0  # number of the next event
    sizes: deque[int] | None = None
    """Bytes of each part that was sent and not given back, where the caller does not count them
    itself; never more than its credit has been for."""


class Run(msgspec.Struct, eq=False):
    """A run whose acceptance was recorded before its node began (runs.py).

    It is here from its acceptance, or from a start of the broker at which it was open, until its
    end is kept; what the journal has of it is then the same as what is here.
    """

    accepted: Accepted
    buffers: Sequence[bytes]  # of its params
    state: RunState  # what all records lead to that were written of it, kept or not
    size: int  # bytes of its params that are here
    is_loaded: bool = True  # whether its params are here; large ones of earlier epochs are not
    is_accepted: bool = False  # whether its acceptance is kept
    at_once: bool = False  # whether it is begun, and its end told, without waiting for that
    attempt: int = 1  # the next one, or the one under way
    request: Request | None = None  # that attempt, from when it may begin until it has ended
    is_again: bool = False  # whether that is one of the attempts whose number is bounded
    end: Ended | None = None  # once it has ended
    end_buffers: Sequence[bytes] = ()
    is_told: bool = False  # whether its end may be told
    awaits: int = 0  # number of the record that must be kept before the attempt begins; 0: none
    was_read: bool = False  # whether its params were read from the journal
    is_cancelled: bool = False  # whether no other attempt is to follow the one that has just ended
    # A workflow that has nothing to do: when its request is to be given out again, once that ends;
    # and whether that waits for then.
    rest_due: float | None = None
    rests: bool = False
    orders: list[Request] = []  # to it, held until its request has a place; some have ended
    # A record of it was refused: it is nothing to us any more; and one with its number, about which
    # the journal is being asked, has its place.
    is_adrift: bool = False
    is_sought: bool = False
    # Of a map: what is left of it, once it has begun; chunks under way, by the keys of their
    # requests; why nothing more of it is begun; and how long its node has run in this attempt.
    ranges: Ranges | None = None
    cuts: dict[Key, tuple[Request, Cut]] = {}
    failure: PronghornError | None = None
    run_ns: int = 0
    # Tickets of requests that wait: for its acceptance, for its result, for its end, for more
    # events; some have ended meanwhile.
    starters: list[int] = []
    waiting: list[int] = []
    enders: list[int] = []
    watchers: list[int] = []

    @property
    def number(self) -> int:
        """The run's number, by which the journal knows it."""
        return self.accepted.run

    @property
    def is_map(self) -> bool:
        """Whether its node is run for each of many items."""
        return self.accepted.items is not None

    @property
    def options(self) -> Options:
        """Those that it was accepted with."""
        return _decode_options(self.accepted.options) or NO_OPTIONS


class Keep(msgspec.Struct, eq=False):
    """What is kept of a request that is to be recorded, until its record is written."""

    durability: KeptDurability
    params: Raw
    buffers: Sequence[bytes]
    run_ns: int = 0  # of the node alone, in the attempt that has ended it
    reply: Send | None = None  # of one that has ended: what is sent when its record is kept
    is_held: bool = False  # whether that waits for the journal
    run: Run | None = None  # which it is an attempt of; None: it is recorded at its end


def runs_alone(node: Node, *, chunk: bool) -> bool:
    """Whether a request runs alone on a worker's loop: chunks, and all of nodes not concurrent.

    Not in run hosts, which conduct whatever they have side by side.
    """
    return not node.concurrent or (chunk and not node.hosted)


class Request(msgspec.Struct, gc=False):
    """One accepted request, kept until the worker's last word on it."""

    key: Key
    id: RequestId
    session: Session
    node: Node
    chunk: bool
    inline: bool  # runs alone on a worker's loop, see `runs_alone`
    params: Raw
    size: int
    buffers: Sequence[bytes]
    origin: Origin | None
    silent: bool  # a notification: it gets no reply
    # monotonic seconds: when it is late; once it was given up while it ran, when its worker is
    due: float | None
    accepted_at: float = 0.0  # monotonic seconds
    worker_id: int = 0  # 0 while it waits in the queue
    # names this handing out on the link and in the slots; a new one each time it is given out, so
    # that the last word on an earlier one is never taken for one on this
    token: int = 0
    slot: int = 0
    cost_ns: float = 0.0  # what it counts with in its worker's load
    ended: bool = False  # its terminal reply is out; a worker may still be busy with it
    depth: int = 0  # how many calls of nodes it lies within
    attempts: int = 1  # how often it was begun, or will have been with the next time
    delayed: bool = False  # waits for its next attempt, or a journal: neither queued nor held
    parent: int = 0  # token of the request whose node has made this call; 0 for a client's
    tracing: Tracing | None = None  # of one whose way is looked at
    here: bool = False  # its caller's worker can run it itself: it never waits in the queue
    ticket: int = 0  # of an order, which the supervisor carries out; 0 for all else
    flow: Flow | None = None  # None: its caller takes nothing but the terminal reply
    priority: int = PRIORITY_DEFAULT
    affinity: str | None = None  # requests of the same one go to the same worker
    room: RoomKey | None = None  # what it waits for; None: for any worker (routes.py)
    gate: Gate | None = None  # that it has passed and not left
    keep: Keep | None = None  # of one that is recorded, until its terminal reply is sent


def answered_here(
    key: Key,
    session: Session,
    node: Node,
    message: Call | RunMessage,
    event: Received,
    options: Options,
    now: float,
) -> Request:
    """Make the request of a call that no worker answers: of a node of Pronghorn's own."""
    origin = event.origin
    return Request(
        key,
        message.id,
        session,
        node,
        False,
        False,
        message.params,
        event.size,
        (),
        origin,
        message.id is None and (origin is None or origin.silent),
        None if options.timeout_ms is None else now + options.timeout_ms / 1000,
        now,
    )
