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
    # waiting for a worker, oldest first; may hold ended ones
    ready: deque[Request] = msgspec.field(default_factory=deque)
    in_rotation: bool = False  # iff `ready` is not empty
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


class ReadyQueue:
    """Requests that wait for a worker, fair among sessions: one of each in turn.

    A request that ended while it waited is skipped when its turn comes and was uncounted before.
    """

    __slots__ = ("_rotation", "bytes", "length")

    def __init__(self) -> None:
        self._rotation: deque[Session] = deque()  # sessions whose `ready` is not empty
        self.length = 0  # waiting requests that have not ended
        self.bytes = 0  # their sizes

    def append(self, request: Request) -> None:
        """Queue a request behind those of its session."""
        session = request.session
        session.ready.append(request)
        self._enter(session, request)

    def put_back(self, request: Request) -> None:
        """Queue a request that had been given out before all others of its session."""
        session = request.session
        session.ready.appendleft(request)
        self._enter(session, request)

    def head(self) -> Request | None:
        """Return the request whose turn it is, without taking it."""
        rotation = self._rotation
        while rotation:
            session = rotation[0]
            ready = session.ready
            while ready:
                if not ready[0].ended:
                    return ready[0]
                ready.popleft()
            session.in_rotation = False
            rotation.popleft()
        return None

    def pop_head(self) -> None:
        """Take the request that `head` has just returned."""
        rotation = self._rotation
        session = rotation[0]
        self.uncount(session.ready.popleft())
        if not session.ready:
            session.in_rotation = False
            rotation.popleft()
        elif len(rotation) > 1:
            rotation.rotate(-1)

    def uncount(self, request: Request) -> None:
        """Say that a waiting request has ended or was taken."""
        self.length -= 1
        self.bytes -= request.size

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended; for tests and invariants."""
        return [one for session in self._rotation for one in session.ready if not one.ended]

    def _enter(self, session: Session, request: Request) -> None:
        self.length += 1
        self.bytes += request.size
        if not session.in_rotation:
            session.in_rotation = True
            self._rotation.append(session)
