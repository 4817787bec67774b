"""The broker's records of requests and sessions, and the queue of those that are ready. Pure.

Mirror: tests/broker/test_requests.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from .events import Origin
from .wire.messages import RequestId

Key = RequestId | tuple[int]
"""What a session knows an open request by: its id, or its number where it has no usable id."""

ENDED_MAX = 32  # so few ended requests may stay in a lane, whatever is in it besides


class Node(msgspec.Struct):
    """One node as the broker sees it."""

    index: int
    name: str
    concurrent: bool  # async or threaded: many run at once in a worker
    # whether a chunk's items run one after the other, each marked in the slot; async ones do not
    marks_items: bool = True
    estimate_ns: float | None = None  # of its run time; None until one was measured
    calls: int = 0  # requests and items that ended with a result
    failures: int = 0  # requests that ended with an error of the node or a lost worker


class Session(msgspec.Struct):
    """What the broker knows of one connection of a client, named by its routing id."""

    peer: bytes
    grant: int  # most requests it may have open
    known: bool = False  # whether it said hello
    # key -> request; a key is here iff the request has not got its terminal reply
    open: dict[Key, Request] = msgspec.field(default_factory=dict)
    open_bytes: int = 0  # of the requests in `open`
    replies: int = 0  # terminal replies since its hello; 0 for strangers, who acknowledge none
    acknowledged: int = 0  # how many of them it says it has read


class Request(msgspec.Struct, gc=False):
    """One accepted request, kept until the worker's last word on it."""

    number: int  # unique in an epoch
    key: Key
    id: RequestId
    session: Session
    node: Node
    chunk: bool
    inline: bool  # runs alone on a worker's loop: all chunks, and requests of nodes not concurrent
    codec: int
    params: Raw
    size: int
    buffers: Sequence[bytes] = ()
    origin: Origin | None = None
    due: float | None = None  # deadline, monotonic seconds
    worker_id: int = 0  # 0 while it waits in the queue
    # names this handing out on the link and in the slots; a new one each time it is given out, so
    # that the last word on an earlier one is never taken for one on this
    token: int = 0
    slot: int = 0
    cost_ns: float = 0.0  # run time it was counted with when it was given to its worker
    quick: bool = False  # whether it counted as quick then
    ended: bool = False  # its terminal reply is out; a worker may still be busy with it
    silent: bool = False  # a notification: it gets no reply


class Lane(msgspec.Struct):
    """What waits of one session in one rotation."""

    peer: bytes
    # oldest first; may hold ended ones, which were uncounted when they ended
    requests: deque[Request] = msgspec.field(default_factory=deque)
    ended: int = 0  # how many of them have ended


class Rotation:
    """Requests that wait for one thing, fair among sessions: one of each in turn."""

    __slots__ = ("_lanes", "_order", "length")

    def __init__(self) -> None:
        self._lanes: dict[bytes, Lane] = {}  # routing id -> lane, while there is something in it
        self._order: deque[Lane] = deque()  # the same lanes in the order of their turns
        self.length = 0  # requests that have not ended

    def lane(self, peer: bytes) -> Lane:
        """Return the lane of a session, which gets its turn after all others if it is new."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = Lane(peer)
            self._order.append(lane)
        return lane

    def head(self) -> Request | None:
        """Return the request whose turn it is, without taking it."""
        order = self._order
        while order:
            lane = order[0]
            requests = lane.requests
            while requests:
                if not requests[0].ended:
                    return requests[0]
                requests.popleft()
                lane.ended -= 1
            del self._lanes[lane.peer]
            order.popleft()
        return None

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended; for tests and invariants."""
        return [one for lane in self._order for one in lane.requests if not one.ended]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        assert len(self._order) == len(self._lanes)
        for lane in self._order:
            assert self._lanes[lane.peer] is lane
            assert lane.ended == sum(request.ended for request in lane.requests)
            assert lane.ended <= max(ENDED_MAX, len(lane.requests) / 2)
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
        rotation, peer = self.rotations[request.inline], request.session.peer
        lane = rotation._lanes.get(peer) or rotation.lane(peer)
        lane.requests.append(request)
        rotation.length += 1
        self.length += 1
        self.bytes += request.size

    def put_back(self, request: Request) -> None:
        """Queue a request that had been given out before all others of its session."""
        rotation = self.rotations[request.inline]
        rotation.lane(request.session.peer).requests.appendleft(request)
        rotation.length += 1
        self.length += 1
        self.bytes += request.size

    def pop_head(self, rotation: Rotation) -> None:
        """Take the request that the rotation's `head` has just returned."""
        order = rotation._order
        lane = order[0]
        self.bytes -= lane.requests.popleft().size
        self.length -= 1
        rotation.length -= 1
        if not lane.requests:
            del rotation._lanes[lane.peer]
            order.popleft()
        elif len(order) > 1:
            order.rotate(-1)

    def drop(self, request: Request) -> None:
        """Take it that a waiting request is about to end.

        It leaves when its turn comes, or with others of its lane once they are the most of it.
        """
        self.length -= 1
        self.bytes -= request.size
        rotation = self.rotations[request.inline]
        rotation.length -= 1
        lane = rotation.lane(request.session.peer)
        lane.ended += 1
        if lane.ended > ENDED_MAX and 2 * lane.ended > len(lane.requests):
            lane.requests = deque(
                one for one in lane.requests if not one.ended and one is not request
            )
            lane.ended = 0

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended; for tests and invariants."""
        return [request for rotation in self.rotations for request in rotation.waiting()]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        waiting = self.waiting()
        assert self.length == len(waiting)
        assert self.bytes == sum(request.size for request in waiting)
        for rotation in self.rotations:
            rotation.check_invariants()
