"""Requests that wait for a worker: in which room, in which band, and whose turn it is. Pure.

A *room* is for requests that wait for the same thing, so that nobody waits behind one that waits
for something else: there are two for what any worker can run, and more for what not every worker
can, or what the limits of its node hold back (`Request.room`). In a room there are four *bands*,
one for each priority, and in a band the sessions take turns.

A band is not passed over for ever: each `AGE_S` in which its first request waits and none of it is
given out it moves up by one, until it has had its turn. What counts is not how long a request has
waited: else thousands that wait for longer would be before one of a higher priority. Nor is a room
passed over: rooms take turns.

Mirror: tests/broker/test_queue.py.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING

import msgspec

from .wire.limits import PRIORITIES

if TYPE_CHECKING:
    from .requests import Request

AGE_S = 1.0
"""A band that waits for its turn moves up by one each time that so many seconds have passed."""

ENDED_MAX = 32  # so few ended requests may stay in a lane, whatever is in it besides

ROOM_OF_GATE, ROOM_OF_WORKER, ROOM_OF_LABELS = "gate", "worker", "labels"

RoomKey = tuple[str, str | int, bool]
"""What the requests in a room wait for: a kind, which of that kind, and whether they run alone."""


class Lane(msgspec.Struct):
    """What waits of one session in one band."""

    # oldest first; may hold ended ones, which were uncounted when they ended
    requests: deque[Request] = msgspec.field(default_factory=deque)
    ended: int = 0  # how many of them have ended

    def compact(self, ending: Request | None = None) -> None:
        """Let go of all that have ended, and of one about to, once they are more than half.

        Fewer stay than go, so each that has ended costs two looks, however long the lane is.
        """
        if 2 * self.ended > len(self.requests):
            self.requests = deque(
                one for one in self.requests if not one.ended and one is not ending
            )
            self.ended = 0


class Band:
    """Requests of one priority, fair among sessions: one of each in turn."""

    __slots__ = ("_lanes", "_served_at", "length")

    def __init__(self) -> None:
        # routing id -> lane, in the order of their turns; a key is here iff a request that has not
        # ended is in its lane
        self._lanes: OrderedDict[bytes, Lane] = OrderedDict()
        self._served_at = -inf  # when it has given out a request last, monotonic seconds
        self.length = 0  # requests that have not ended

    def lane(self, peer: bytes) -> Lane:
        """Return the lane of a session, which gets its turn after all others if it is new."""
        lane = self._lanes.get(peer)
        if lane is None:
            lane = self._lanes[peer] = Lane()
        return lane

    def head(self) -> Request:
        """Return the request whose turn it is, without taking it; there is one."""
        lane = next(iter(self._lanes.values()))
        requests = lane.requests
        while requests[0].ended:
            requests.popleft()
            lane.ended -= 1
        return requests[0]

    def waits_since(self) -> float:
        """Tell since when its first request waits for the turn of this band; there is one."""
        return max(self.head().accepted_at, self._served_at)

    def pop_head(self, now: float) -> Request:
        """Take the request that `head` has just returned."""
        self._served_at = now
        peer, lane = next(iter(self._lanes.items()))
        request = lane.requests.popleft()
        self.length -= 1
        if len(lane.requests) == lane.ended:
            del self._lanes[peer]
        else:
            self._lanes.move_to_end(peer)
            if lane.ended > ENDED_MAX:
                lane.compact()
        return request

    def drop(self, request: Request) -> None:
        """Uncount a waiting request that is about to end; see `ReadyQueue.drop`."""
        self.length -= 1
        peer = request.session.peer
        lane = self._lanes[peer]
        lane.ended += 1
        if lane.ended == len(lane.requests):
            del self._lanes[peer]
        elif lane.ended > ENDED_MAX:
            lane.compact(request)

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended."""
        return [one for lane in self._lanes.values() for one in lane.requests if not one.ended]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        for peer, lane in self._lanes.items():
            assert lane.ended == sum(request.ended for request in lane.requests)
            assert lane.ended < len(lane.requests), "a lane is kept for what has not ended"
            assert lane.ended <= max(ENDED_MAX, len(lane.requests) / 2)
            assert all(request.session.peer == peer for request in lane.requests)
        assert self.length == len(self.waiting())


class Room:
    """Requests that wait for one thing."""

    __slots__ = ("bands", "length", "turn")

    def __init__(self, turn: int = 0) -> None:
        self.bands = tuple(Band() for _ in range(PRIORITIES))
        self.length = 0  # requests that have not ended
        self.turn = turn  # the lower, the longer ago it gave out a request beside other rooms

    def first(self, now: float) -> Band | None:
        """Return the band whose head is next; `None` if nothing waits."""
        if not self.length:
            return None
        first: Band | None = None
        least = 0.0
        for number, band in enumerate(self.bands):
            if band.length:
                if band.length == self.length:  # there is no other
                    return band
                rank = number - (now - band.waits_since()) / AGE_S
                if first is None or rank < least:
                    first, least = band, rank
        return first

    def comes_before(self, request: Request, now: float) -> bool:
        """Whether something waits that a new request has to wait behind."""
        priority = request.priority
        return any(
            number <= priority or number - (now - band.waits_since()) / AGE_S <= priority
            for number, band in enumerate(self.bands)
            if band.length
        )

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended."""
        return [request for band in self.bands for request in band.waiting()]


class ReadyQueue:
    """All requests that wait for a worker."""

    __slots__ = ("_ordinary", "_special", "_turns", "bytes", "length")

    def __init__(self) -> None:
        # What any worker can run beside others, and what it can run alone: else one client's many
        # sleeping calls would keep another's from an idle worker.
        self._ordinary = (Room(), Room())
        self._special: dict[RoomKey, Room] = {}  # a key is here iff something waits in its room
        self._turns = 0  # the turn given to a room last
        self.length = 0  # waiting requests that have not ended
        self.bytes = 0  # their sizes

    def rooms(self) -> list[Room]:
        """List the rooms in which something waits, those first whose requests run beside others.

        For these take no room from what runs alone. Among these and those it goes by turns.
        """
        if not self._special:
            return [room for room in self._ordinary if room.length]
        ordinary = [(alone, room) for alone, room in enumerate(self._ordinary) if room.length]
        special = [(key[2], room) for key, room in self._special.items()]
        return [room for _, room in sorted([*ordinary, *special], key=_alone_and_turn)]

    @property
    def has_special(self) -> bool:
        """Whether something waits for more than any worker."""
        return bool(self._special)

    def has_before(self, request: Request, now: float) -> bool:
        """Whether something waits that a new request has to wait behind."""
        room = self._room(request)
        return room is not None and room.length > 0 and room.comes_before(request, now)

    def append(self, request: Request) -> None:
        """Queue a request behind those of its session and priority."""
        self._lane(request).requests.append(request)

    def put_back(self, request: Request) -> None:
        """Queue a request that had been given out before all others of its session."""
        request.worker_id = 0
        self._lane(request).requests.appendleft(request)

    def pop_head(self, room: Room, band: Band, now: float) -> Request:
        """Take the head of a room's band."""
        request = band.pop_head(now)
        if self._special:
            room.turn = self._turns = self._turns + 1
        self._uncount(request, room)
        return request

    def drop(self, request: Request) -> None:
        """Take it that a waiting request is about to end.

        It leaves when its turn comes, or with others of its lane once they are the most of it.
        """
        room = self._room(request)
        assert room is not None, "it waits"
        room.bands[request.priority].drop(request)
        self._uncount(request, room)

    def take(self, key: RoomKey) -> list[Request]:
        """Take all that waits in a room, those of each session in their order."""
        room = self._special.pop(key, None)
        waiting = [] if room is None else room.waiting()
        for request in waiting:
            self.length -= 1
            self.bytes -= request.size
            request.node.counts.queued -= 1
        return waiting

    def take_all(self) -> list[Request]:
        """Take all that waits, those of each session in their order."""
        waiting = self.waiting()
        self._ordinary = (Room(), Room())
        self._special.clear()
        self.length = self.bytes = 0
        for request in waiting:
            request.node.counts.queued -= 1
        return waiting

    def waiting(self) -> list[Request]:
        """List all waiting requests that have not ended."""
        rooms = (*self._ordinary, *self._special.values())
        return [request for room in rooms for request in room.waiting()]

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        waiting = self.waiting()
        assert self.length == len(waiting)
        assert self.bytes == sum(request.size for request in waiting)
        assert not any(request.worker_id for request in waiting)
        for alone, room in enumerate(self._ordinary):
            assert all(one.room is None and one.inline == alone for one in room.waiting())
        for key, room in self._special.items():
            assert room.length, "a room is kept for what waits in it"
            assert all(request.room == key for request in room.waiting())
        for room in (*self._ordinary, *self._special.values()):
            assert room.length == sum(band.length for band in room.bands)
            for number, band in enumerate(room.bands):
                band.check_invariants()
                assert all(request.priority == number for request in band.waiting())

    def _room(self, request: Request) -> Room | None:
        if request.room is None:
            return self._ordinary[request.inline]
        return self._special.get(request.room)

    def _lane(self, request: Request) -> Lane:
        """Count a request in, and return the lane that it waits in."""
        room = self._room(request)
        if room is None:
            assert request.room is not None
            self._turns += 1
            room = self._special[request.room] = Room(self._turns)
        band = room.bands[request.priority]
        band.length += 1
        room.length += 1
        self.length += 1
        self.bytes += request.size
        request.node.counts.queued += 1
        return band.lane(request.session.peer)

    def _uncount(self, request: Request, room: Room) -> None:
        room.length -= 1
        self.length -= 1
        self.bytes -= request.size
        request.node.counts.queued -= 1
        if not room.length and request.room is not None:
            del self._special[request.room]


def _alone_and_turn(of: tuple[bool | int, Room]) -> tuple[bool | int, int]:
    return of[0], of[1].turn
