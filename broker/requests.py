"""The broker's records of nodes, sessions and requests, and the queue of those ready to run. Pure.

What is written to at each call is no `msgspec.Struct`: setting an attribute of one takes 21 ns, of
a class with slots 6 ns. A request is one all the same, for there it is the making that counts.

Mirror: tests/broker/test_requests.py.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from .events import Origin
from .quarantine import Record
from .retries import RetryBudget
from .statistics import NodeCounts
from .tracing import Tracing
from .wire.messages import RequestId
from .wire.table import RetryPolicy

Key = RequestId | tuple[int]
"""What a session knows an open request by: its id, or a number where it has no usable id."""

ENDED_MAX = 32  # so few ended requests may stay in a lane, whatever is in it besides


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
    refused_until: float = 0.0  # monotonic seconds; 0 while it is not in quarantine
    served: bool = True  # False: there is none of its name any more, or another


@dataclass(slots=True, eq=False)
class Session:
    """What the broker knows of one connection of a client, named by its routing id."""

    peer: bytes
    grant: int  # most requests it may have open, replies that it has not acknowledged included
    known: bool = False  # whether it said hello
    # key -> request; a key is here iff the request has not got its terminal reply
    open: dict[Key, Request] = field(default_factory=dict)
    open_bytes: int = 0  # of the requests in `open`
    acknowledged: int = 0  # terminal replies since its hello that it says it has read
    unacknowledged: int = 0  # those that it has not; 0 for strangers, who acknowledge none
    replies_seen: int = -1  # all of them when it was last looked at; -1: not since its hello
    worker_id: int = 0  # whose nodes make calls here; 0 for a client's
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


class Request(msgspec.Struct, gc=False):
    """One accepted request, kept until the worker's last word on it."""

    key: Key
    id: RequestId
    session: Session
    node: Node
    chunk: bool
    inline: bool  # runs alone on a worker's loop: all chunks, and requests of nodes not concurrent
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
    delayed: bool = False  # waits for its next attempt, neither queued nor held
    parent: int = 0  # token of the request whose node has made this call; 0 for a client's
    tracing: Tracing | None = None  # of one whose way is looked at
    here: bool = False  # its caller's worker can run it itself: it never waits in the queue
    ticket: int = 0  # of an order, which the supervisor carries out; 0 for all else
    flow: Flow | None = None  # None: its caller takes nothing but the terminal reply


class Lane(msgspec.Struct):
    """What waits of one session in one rotation."""

    # oldest first; may hold ended ones, which were uncounted when they ended
    requests: deque[Request] = msgspec.field(default_factory=deque)
    ended: int = 0  # how many of them have ended


class Rotation:
    """Requests that wait for one thing, fair among sessions: one of each in turn."""

    __slots__ = ("_lanes", "length")

    def __init__(self) -> None:
        # routing id -> lane, in the order of their turns; a key is here iff a request that has not
        # ended is in its lane
        self._lanes: OrderedDict[bytes, Lane] = OrderedDict()
        self.length = 0  # requests that have not ended

    def lane(self, peer: bytes) -> Lane:
        """Return the lane of a session, which gets its turn after all others if it is new."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = Lane()
        return lane

    def head(self) -> Request | None:
        """Return the request whose turn it is, without taking it."""
        lane = next(iter(self._lanes.values()), None)
        if lane is None:
            return None
        requests = lane.requests
        while requests[0].ended:
            requests.popleft()
            lane.ended -= 1
        return requests[0]

    def pop_head(self) -> Request:
        """Take the request that `head` has just returned."""
        peer, lane = next(iter(self._lanes.items()))
        request = lane.requests.popleft()
        self.length -= 1
        if len(lane.requests) == lane.ended:
            del self._lanes[peer]
        else:
            self._lanes.move_to_end(peer)
        return request

    def drop(self, request: Request) -> None:
        """Uncount a waiting request that is about to end; see `ReadyQueue.drop`."""
        self.length -= 1
        peer = request.session.peer
        lane = self._lanes[peer]
        lane.ended += 1
        if lane.ended == len(lane.requests):
            del self._lanes[peer]
        elif lane.ended > ENDED_MAX and 2 * lane.ended > len(lane.requests):
            lane.requests = deque(
                one for one in lane.requests if not one.ended and one is not request
            )
            lane.ended = 0

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended; for tests and invariants."""
        return [one for lane in self._lanes.values() for one in lane.requests if not one.ended]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        for peer, lane in self._lanes.items():
            assert lane.ended == sum(request.ended for request in lane.requests)
            assert lane.ended < len(lane.requests), "a lane is kept for what has not ended"
            assert lane.ended <= max(ENDED_MAX, len(lane.requests) / 2)
            assert all(request.session.peer == peer for request in lane.requests)
        assert self.length == len(self.waiting())


class ReadyQueue:
    """Requests that wait for a worker.

    There are two rotations, because what runs beside others waits for other room than what runs
    alone: else one client's many sleeping calls would keep another's from an idle worker.
    """

    __slots__ = ("bytes", "length", "rotations")

    def __init__(self) -> None:
        # Of what runs beside others first: it takes no room from what runs alone.
        self.rotations = (Rotation(), Rotation())
        self.length = 0  # waiting requests that have not ended
        self.bytes = 0  # their sizes

    def rotation(self, request: Request) -> Rotation:
        """Return the rotation that a request waits in."""
        return self.rotations[request.inline]

    def append(self, request: Request) -> None:
        """Queue a request behind those of its session."""
        rotation = self.rotations[request.inline]
        rotation.lane(request.session.peer).requests.append(request)
        rotation.length += 1
        self.length += 1
        self.bytes += request.size
        request.node.counts.queued += 1

    def put_back(self, request: Request) -> None:
        """Queue a request that had been given out before all others of its session."""
        request.worker_id = 0
        rotation = self.rotations[request.inline]
        rotation.lane(request.session.peer).requests.appendleft(request)
        rotation.length += 1
        self.length += 1
        self.bytes += request.size
        request.node.counts.queued += 1

    def pop_head(self, rotation: Rotation) -> None:
        """Take the request that the rotation's `head` has just returned."""
        request = rotation.pop_head()
        self.bytes -= request.size
        self.length -= 1
        request.node.counts.queued -= 1

    def drop(self, request: Request) -> None:
        """Take it that a waiting request is about to end.

        It leaves when its turn comes, or with others of its lane once they are the most of it.
        """
        self.length -= 1
        self.bytes -= request.size
        request.node.counts.queued -= 1
        self.rotations[request.inline].drop(request)

    def take_all(self) -> list[Request]:
        """Take all waiting requests that have not ended, those of each session in their order."""
        waiting = self.waiting()
        self.rotations = (Rotation(), Rotation())
        self.length = self.bytes = 0
        for request in waiting:
            request.node.counts.queued -= 1
        return waiting

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended."""
        return [request for rotation in self.rotations for request in rotation.waiting()]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        waiting = self.waiting()
        assert self.length == len(waiting)
        assert self.bytes == sum(request.size for request in waiting)
        assert not any(request.worker_id for request in waiting)
        for rotation in self.rotations:
            rotation.check_invariants()
