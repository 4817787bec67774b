"""What the broker's core promises beyond its own invariants: windows, fairness, nothing blocked.

Looks into the core, which has no other way to tell.
"""

from math import inf

from pronghorn.broker.core import BrokerCore
from pronghorn.broker.deadlines import ROOM_MIN
from pronghorn.broker.events import Assign, Send
from pronghorn.broker.placement import Worker, WorkerState
from pronghorn.broker.requests import Request
from pronghorn.broker.window import BUDGET_NS, STALL_S, WINDOW_BYTES
from pronghorn.broker.wire.link import RunCall, RunChunk
from pronghorn.broker.wire.messages import Error, MapResult, Part, RequestId, Result
from pronghorn.broker.wire.messages import Event as EventMessage
from pronghorn.broker.wire.slots import SLOTS_PER_WORKER, SlotState

SLACK_S = 0.006
"""What a blocked request may wait beyond `STALL_S`: a late tick after one that was late before."""

_LATE_S = 0.004  # a tick for a deadline may be so late


class _Turn:
    """How long a session waits for its turn."""

    def __init__(self, first: Request) -> None:
        self.first = first
        self.served: dict[tuple[bytes, bool], int] = {}  # the same of others -> their turns since


class Watch:
    """Watches one core."""

    def __init__(self, core: BrokerCore) -> None:
        self._life = core._life
        self._sessions = core._sessions.by_peer
        self._nested = core._nested.sessions
        self._runs = core._durable.runs_session
        self._given_at: dict[int, float] = {}  # token -> when it was given to a worker
        # peer, rotation -> the first of its requests there, and who was served since; calls of
        # nodes take turns as one peer
        self._turns: dict[tuple[bytes, bool], _Turn] = {}
        self._someone_is_idle = False  # after the last burst
        self._next_parts: dict[tuple[bytes, RequestId], int] = {}  # peer, id -> number of its next
        self._next_events: dict[tuple[bytes, RequestId], int] = {}
        # Of clients that said hello, which never use an id again.
        self._told_the_end: set[tuple[bytes, RequestId]] = set()

    def sent(self, command: Send) -> None:
        """Check that parts and events are numbered without gaps and end with the terminal."""
        message = command.message
        if not command.batched or message.id is None:
            return
        key = command.peer, message.id
        assert key not in self._told_the_end, "I7: nothing follows the terminal reply"
        if isinstance(message, Part):
            assert message.seq == self._next_parts.get(key, 0), "I7: parts have no gaps"
            self._next_parts[key] = message.seq + 1
        elif isinstance(message, EventMessage):
            assert message.seq == self._next_events.get(key, 0), "I7: events have no gaps"
            self._next_events[key] = message.seq + 1
        elif isinstance(message, Result | MapResult | Error):
            self._told_the_end.add(key)

    def assigned(self, command: Assign, now: float) -> None:
        """Note a request that is given to a worker."""
        if not isinstance(command.message, RunCall | RunChunk):
            return
        token = command.message.token
        assert token not in self._given_at, "a request given out again has a new token"
        self._given_at[token] = now
        worker = self._life.placement.workers.get(command.worker_id)
        if worker is not None and token in worker.held:
            self._check_turn(worker.held[token])

    def forget_turns(self) -> None:
        """Take it that what waits may wait for something else from now on."""
        self._turns.clear()

    def settled(self) -> None:
        """Check what has to hold after a burst was dealt with."""
        life = self._life
        idle = [one for one in life.placement.workers.values() if one.idle]
        self._someone_is_idle = bool(idle)
        if idle:
            waiting = [request for request in life.queue.waiting() if request.inline]
            assert not waiting, f"worker {idle[0].id} is idle, {len(waiting)} requests wait"
        before, self._turns = self._turns, {}
        for room in life.queue.rooms():
            first: dict[bytes, Request] = {}
            for request in room.waiting():
                first.setdefault(request.session.peer, request)
            for peer, request in first.items():
                turn = before.get((peer, request.inline))
                if turn is None or turn.first is not request:
                    turn = _Turn(request)
                self._turns[peer, request.inline] = turn

    def check(self, now: float) -> None:
        """Check what has to hold between any two events."""
        life = self._life
        for worker in life.placement.workers.values():
            self._check_window(worker)
            self._check_not_stuck(worker, now)
            if self._someone_is_idle and worker.held:
                self._check_not_blocked(worker, now)
        for session in self._sessions.values():
            assert len(session.open) <= session.grant
        sessions = (*self._sessions.values(), *self._nested.values(), self._runs)
        for session in sessions:
            for request in session.open.values():
                assert request.due is None or now <= request.due + _LATE_S, "a deadline is missed"
        assert len(life.deadlines) <= ROOM_MIN, "the deadlines grow without bound"
        open_requests = sum(len(session.open) for session in sessions)
        count = life.count
        ended = count.completed + count.failed + count.returned
        assert life.accepted == ended + open_requests, "each is counted"

    def check_drained(self) -> None:
        """Check that no request is left anywhere."""
        life = self._life
        assert life.queue.length == 0
        assert not any(session.open for session in self._sessions.values())
        assert not any(session.open for session in self._nested.values())
        assert not self._runs.open
        assert not (life.children)
        assert not (life._orphans)
        assert not (life.delayed.items())
        assert self._nested.keys() <= life.placement.workers.keys()
        for worker in life.placement.workers.values():
            assert not worker.held
            assert not worker.revoked, "what was taken back is not confirmed"
            assert worker.idle

    def _check_turn(self, served: Request) -> None:
        """Check that no session is served twice while another one waits."""
        if served.here:  # it can't wait for a turn
            return
        me = served.session.peer, served.inline
        for waiting, turn in self._turns.items():
            if waiting == me:
                turn.served.clear()
            elif waiting[1] == served.inline and self._waits_still(turn.first):
                turn.served[me] = turn.served.get(me, 0) + 1
                assert turn.served[me] <= 1, "a session is served twice while another one waits"

    def _waits_still(self, request: Request) -> bool:
        return not request.ended and not request.worker_id and request.token == 0

    @staticmethod
    def _check_window(worker: Worker) -> None:
        held: list[Request] = [request for request in worker.held.values() if request.inline]
        assert len(worker.held) + len(worker.revoked) <= SLOTS_PER_WORKER
        if len(held) > 1:
            quick = [request.cost_ns < inf and not request.chunk for request in held]
            assert all(quick), "a slow request has a worker for itself"
            assert worker.load_ns <= BUDGET_NS + 1
            if not worker.concurrent_count:
                assert worker.held_bytes <= WINDOW_BYTES

    @staticmethod
    def _check_not_stuck(worker: Worker, now: float) -> None:
        """Check that a worker which goes on with what was given up is killed in time."""
        for request in worker.held.values():
            watched = worker.state in (WorkerState.READY, WorkerState.DRAINING)
            if request.ended and request.inline and watched:
                assert request.due is not None
                assert now <= request.due + _LATE_S, "a stuck worker is not killed"

    def _check_not_blocked(self, worker: Worker, now: float) -> None:
        for token, request in worker.held.items():
            since = max(worker.progress_at, self._given_at.get(token, now))
            if now - since > STALL_S + SLACK_S and not request.ended:
                state = worker.page.state(request.slot, token)
                assert state is not SlotState.HELD, "a request waits behind a blocked one"
