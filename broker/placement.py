"""Which worker gets a request, and what is taken back from one that is blocked. Pure.

Rules, in order:

1. An idle worker gets the next request, the one that was busy last first: its caches are warm.
2. Quick requests (window.py) also go to workers that hold only quick ones, in turn.
3. A request of a concurrent node goes to the worker with the fewest of them.
4. What a blocked worker has not begun is taken back as soon as another one has room.
5. A worker that the first of one room of the queue (queue.py) waits for is kept from the others:
   their quick requests would fill it without end.
6. Run hosts get workflows and nothing else, and all of these side by side.

Mirror: tests/broker/test_placement.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from .queue import ROOM_OF_WORKER, RoomKey
from .requests import Node, Request
from .window import (
    BUDGET_NS,
    CONCURRENT_PER_WORKER,
    OVERHEAD_NS,
    QUICK_NS,
    STALL_S,
    WINDOW_BYTES,
)
from .wire.flows import CONTROL
from .wire.slots import SLOTS_PER_WORKER, SlotsPage, SlotState
from .wire.table import HOST_LABEL

KEPT_FOR_ORDERS = 8
"""Requests that a run host takes besides runs: orders to these. All of them may wait for one."""


class WorkerState(Enum):
    """The life of a worker: started, then ready, then gone (and out of every index)."""

    STARTING = "starting"
    WARM = "warm"  # it could take requests, but not yet of the nodes that are served
    READY = "ready"
    DRAINING = "draining"  # told to stop: it gets nothing more and ends what it has begun
    CONDEMNED = "condemned"  # about to be killed: it gets nothing more


@dataclass(slots=True, eq=False)
class Worker:
    """What the broker knows of one worker."""

    id: int
    page: SlotsPage
    free_slots: list[int]
    generation: int = 0  # of the nodes it has
    state: WorkerState = WorkerState.STARTING
    pid: int = 0
    # when the supervisor wants to be told of `given`: once it is so many; at that time
    look_at: float = inf
    look_due: float = inf
    look_s: float = inf  # from one such time to the next
    # token -> request given to it whose last word has not come, in the order they were given
    held: dict[int, Request] = field(default_factory=dict)
    # token -> slot of requests taken back that it has not confirmed as skipped yet
    revoked: dict[int, int] = field(default_factory=dict)
    held_bytes: int = 0  # sizes of `held`
    given: int = 0  # requests that it was given so far
    started_at: float = 0.0  # monotonic seconds
    load_ns: float = 0.0  # costs of the inline requests in `held`; inf: one that is not quick
    concurrent_count: int = 0  # requests of concurrent nodes in `held`; all others are inline
    progress_at: float = 0.0  # when it sent a message or, holding nothing, was given a request
    check_at: float = inf  # when to look whether it is blocked; inf while it holds nothing new
    usable: bool = False  # iff it is ready and not stalled
    stalled: bool = False  # blocked, as far as is known; gets nothing until it sends a message
    labels: frozenset[str] = frozenset()  # for nodes that need something special
    is_host: bool = False  # whether it is a run host
    idle: bool = False  # whether it is in Placement's list of idle ones
    in_rotation: bool = False  # whether it is in Placement's rotation
    is_kept: bool = False  # whether it is in Placement's list of kept ones
    kept_for: RoomKey | None = None  # of what room


class Placement:
    """All workers, and who of them can take what.

    Hot path: `place` and `take` run once per request (guarded by ``scripts/bench guard``).
    """

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}  # worker id -> worker, from its start to its end
        self._ordinary: dict[int, Worker] = {}  # the same, but for run hosts
        self.stalled: dict[int, Worker] = {}  # worker id -> worker, iff it is stalled
        self.check_at = inf  # no worker has an earlier `check_at`
        self.budget_ns = BUDGET_NS  # run time that a worker may hold ahead
        # Those that get nothing quick but from one room, until the next `keep_none`.
        self.kept: list[Worker] = []
        self.looks: list[Worker] = []  # those of whom the supervisor is to be told
        # Those found blocked, who are to be asked: they hold only what runs beside others, so they
        # may begin it all and have nothing to say for long; of what is inline there are last words.
        self.asked: list[Worker] = []
        self._idle: list[Worker] = []  # no inline request and a free slot; last in, first out
        self._rotation: deque[Worker] = deque()  # may have room for quick ones; checked when used
        self._tokens = 0  # the token given out last

    @property
    def has_idle(self) -> bool:
        """Whether a worker runs nothing that runs alone, and could."""
        return bool(self._idle)

    def add(
        self,
        worker_id: int,
        page: SlotsPage,
        now: float = 0.0,
        labels: frozenset[str] = frozenset(),
    ) -> Worker:
        """Take in a worker that was started; it gets nothing before `ready`."""
        slots = list(range(SLOTS_PER_WORKER - 1, -1, -1))
        worker = Worker(worker_id, page, slots, started_at=now, labels=labels)
        self.workers[worker_id] = worker
        worker.is_host = HOST_LABEL in labels
        if not worker.is_host:
            self._ordinary[worker_id] = worker
        return worker

    def ready(self, worker: Worker, pid: int) -> None:
        """Note that a worker can take requests."""
        worker.state = WorkerState.READY
        worker.usable = True
        worker.pid = pid
        self._file(worker)

    def remove(self, worker: Worker) -> None:
        """Forget a worker that is gone; its `held` is the caller's to deal with."""
        del self.workers[worker.id]
        self._ordinary.pop(worker.id, None)
        self.stalled.pop(worker.id, None)
        if worker.is_kept:
            self.kept.remove(worker)
        if worker.idle:
            self._idle.remove(worker)
        if worker.in_rotation:
            self._rotation.remove(worker)

    def place(self, request: Request, now: float) -> Worker | None:
        """Give a request to the best worker for it; `None` when none has room for it now.

        Sets the request's worker, token and slot.
        """
        worker: Worker | None
        special = None if request.room is None else self._fit_for(request)
        if not request.inline:
            fit = self._ordinary.values() if special is None else special
            worker = self._find_concurrent(fit, is_order=request.node.name == CONTROL)
            if worker is None:
                return None
            worker.concurrent_count += 1
        else:
            estimate_ns = request.node.estimate_ns
            if request.chunk or estimate_ns is None or estimate_ns >= QUICK_NS:
                cost_ns = inf  # more than any budget: it has a worker for itself
            else:
                cost_ns = estimate_ns + OVERHEAD_NS
            if special is not None:
                worker = self._find_special(special, request, cost_ns)
                if worker is None:
                    return None
                if worker.idle:
                    self._idle.remove(worker)
                    self._begin_idle(worker, cost_ns)
            elif self._idle:
                worker = self._idle.pop()
                self._begin_idle(worker, cost_ns)
            else:
                worker = self._find_quick(cost_ns, request.size)
                if worker is None:
                    return None
            worker.load_ns += cost_ns
            request.cost_ns = cost_ns
        self._tokens = request.token = token = self._tokens + 1
        request.worker_id = worker.id
        request.slot = worker.free_slots.pop()
        held = worker.held
        if not held:
            worker.progress_at = now
        held[token] = request
        worker.held_bytes += request.size
        worker.given += 1
        if worker.check_at == inf:
            worker.check_at = now + STALL_S
            if worker.check_at < self.check_at:
                self.check_at = worker.check_at
        if worker.idle and not worker.free_slots:
            self._file(worker)
        return worker

    def keep(self, request: Request) -> None:
        """Keep a worker, if it is busy with quick ones, for the room of one that has none."""
        fit = self._ordinary.values() if request.room is None else self._fit_for(request)
        busy = [worker for worker in fit if _takes_quick(worker) and not worker.is_kept]
        if request.inline and busy:
            worker = min(busy, key=lambda one: one.load_ns)
            worker.is_kept, worker.kept_for = True, request.room
            self.kept.append(worker)

    def keep_none(self) -> None:
        """Let all rooms have all workers again."""
        kept, self.kept = self.kept, []
        for worker in kept:
            worker.is_kept = False
            self._file(worker)

    def has_room_for(self, request: Request) -> bool:
        """Whether a worker that has the labels of its node could take a request at once."""
        fit = self._having(request.node)
        if request.inline:
            return any(worker.idle for worker in fit)
        return self._find_concurrent(fit, is_order=False) is not None

    def take(self, worker: Worker, token: int) -> Request | None:
        """Take out what a worker has said its last word on; `None` if it was taken back before."""
        request = worker.held.pop(token, None)
        if request is None:
            slot = worker.revoked.pop(token, None)
            if slot is not None:
                worker.free_slots.append(slot)
                self._file(worker)
            return None
        worker.free_slots.append(request.slot)
        worker.held_bytes -= request.size
        if not request.inline:
            worker.concurrent_count -= 1
            self._file(worker)
        elif len(worker.held) == worker.concurrent_count:  # that was the last inline one
            worker.load_ns = 0.0  # sums of floats drift, and inf stays inf
            if worker.usable:
                worker.idle = True
                self._idle.append(worker)
        else:
            worker.load_ns -= request.cost_ns
            if not worker.in_rotation:
                self._file(worker)
        return request

    def holds(self, request: Request) -> bool:
        """Whether a worker holds a request, its last word on it not said."""
        worker = self.workers.get(request.worker_id)
        return worker is not None and request.token in worker.held

    def unblock(self, worker: Worker) -> None:
        """Note that a stalled worker has sent something, so it is not blocked any more."""
        worker.stalled = False
        worker.usable = worker.state is WorkerState.READY
        del self.stalled[worker.id]
        if worker.held:  # what it begins next may block what it still holds
            worker.check_at = worker.progress_at + STALL_S
            self.check_at = min(self.check_at, worker.check_at)
        self._file(worker)

    def block(self, worker: Worker) -> None:
        """Note that a worker is blocked, so that it gets nothing until it sends a message."""
        if worker.usable:
            worker.stalled = True
            worker.usable = False
            self.stalled[worker.id] = worker
            self._file(worker)

    def revoke(self, worker: Worker, request: Request) -> bool:
        """Take back a request that a worker holds; `False` when it has begun, or may have.

        Its slot stays occupied until the worker confirms that it skipped it.
        """
        if not worker.page.revoke(request.slot, request.token):
            return False
        self.take(worker, request.token)
        worker.revoked[request.token] = worker.free_slots.pop()
        self._file(worker)
        return True

    def check(self, now: float) -> None:
        """Mark the workers that are blocked; to be called when `check_at` has come."""
        self.check_at = inf
        for worker in self.workers.values():
            if worker.check_at <= now:
                self._check(worker, now)
            self.check_at = min(self.check_at, worker.check_at)

    def take_back(self) -> list[Request]:
        """Take back what blocked workers have not begun, if another or its caller could run it."""
        has_room = bool(self._idle) or any(map(_takes_quick, self._rotation))
        taken: list[Request] = []
        for worker in self.stalled.values():
            # What a host has not begun, such as a request so large that it still reads it, would
            # come back to it again and again as long as no other host is there.
            if self._has_another_host() if worker.is_host else has_room:
                taken += self._revoke_all(worker)
            else:
                taken += [
                    request
                    for request in list(worker.held.values())
                    if request.here and not request.ended and self.revoke(worker, request)
                ]
        return taken

    def _has_another_host(self) -> bool:
        """Whether a run host that is not stalled has room."""
        workers = self.workers.values()
        return any(one.is_host and one.usable and bool(one.free_slots) for one in workers)

    def condemn(self, worker: Worker) -> list[Request]:
        """Give a worker nothing more, as it will be killed; take back what it has not begun."""
        return self._close(worker, WorkerState.CONDEMNED)

    def drain(self, worker: Worker) -> list[Request]:
        """Give a worker nothing more, as it is told to stop; take back what it has not begun."""
        return self._close(worker, WorkerState.DRAINING)

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        for worker in self.workers.values():
            slots = [*worker.free_slots, *worker.revoked.values()]
            slots += [request.slot for request in worker.held.values()]
            assert sorted(slots) == list(range(SLOTS_PER_WORKER)), "each slot is in one place"
            held = worker.held.values()
            inline = [request for request in held if request.inline]
            assert worker.concurrent_count == len(held) - len(inline)
            load_ns = sum(request.cost_ns for request in inline)
            assert worker.load_ns == load_ns or abs(worker.load_ns - load_ns) < 1
            assert load_ns < inf or len(inline) == 1, "what is not quick has a worker for itself"
            assert worker.held_bytes == sum(request.size for request in held)
            assert all(request.worker_id == worker.id for request in held)
            assert worker.stalled == (worker.id in self.stalled)
            ready = worker.state is WorkerState.READY
            assert worker.usable == (ready and not worker.stalled)
            assert worker.idle == _is_idle(worker)
            assert worker.idle == (worker in self._idle)
            assert worker.in_rotation == (worker in self._rotation)
            assert self.check_at <= worker.check_at
            assert worker.is_kept == (worker in self.kept)
        assert len(self._idle) <= len(self.workers)

    def _begin_idle(self, worker: Worker, cost_ns: float) -> None:
        """Have a worker begin something that runs alone, which is not in the list of idle ones."""
        worker.idle = False
        if cost_ns < inf and not worker.in_rotation:
            worker.in_rotation = True
            self._rotation.append(worker)

    def _fit_for(self, request: Request) -> list[Worker]:
        """List the workers that may run a request which not any may."""
        assert request.room is not None, "it has a room of its own"
        kind, which, _ = request.room
        if kind == ROOM_OF_WORKER:
            worker = self.workers.get(int(which))
            return [] if worker is None else [worker]
        return self._having(request.node)

    def _having(self, node: Node) -> list[Worker]:
        """List the workers that have the labels of a node."""
        return [
            worker
            for worker in self.workers.values()
            if node.labels <= worker.labels and node.hosted == worker.is_host
        ]

    def _find_special(self, fit: list[Worker], request: Request, cost_ns: float) -> Worker | None:
        """Find among some workers an idle one, or else one that has room for something quick."""
        best: Worker | None = None
        for worker in fit:
            if worker.idle:
                return worker
            if worker.is_kept and worker.kept_for != request.room:
                continue
            if best is None and self._has_room(worker, cost_ns, request.size):
                best = worker
        return best

    def _has_room(self, worker: Worker, cost_ns: float, size: int) -> bool:
        return (
            worker.load_ns + cost_ns <= self.budget_ns
            and worker.held_bytes + size <= WINDOW_BYTES
            and worker.usable
            and bool(worker.free_slots)
        )

    @staticmethod
    def _find_concurrent(workers: Iterable[Worker], *, is_order: bool) -> Worker | None:
        best: Worker | None = None
        for worker in workers:
            if (
                worker.usable
                and worker.load_ns < inf
                and (is_order or _has_place(worker))
                and worker.free_slots
                and (best is None or worker.concurrent_count < best.concurrent_count)
            ):
                best = worker
        return best

    def _find_quick(self, cost_ns: float, size: int) -> Worker | None:
        rotation = self._rotation
        if cost_ns == inf:
            return None
        while rotation:
            worker = rotation[0]
            may_have = not worker.is_kept or worker.kept_for is None
            if may_have and self._has_room(worker, cost_ns, size):
                rotation.rotate(-1)
                return worker
            rotation.popleft()
            worker.in_rotation = False
        return None

    def _revoke_all(self, worker: Worker) -> list[Request]:
        """Take back all that a worker has not begun, as long as somebody waits for it."""
        return [
            request
            for request in _not_begun(worker)
            if not request.ended and self.revoke(worker, request)
        ]

    def _close(self, worker: Worker, state: WorkerState) -> list[Request]:
        worker.state = state
        worker.usable = False
        taken = self._revoke_all(worker)
        self._file(worker)
        return taken

    def _check(self, worker: Worker, now: float) -> None:
        if worker.given >= worker.look_at or now >= worker.look_due:
            worker.look_at = inf  # told once
            worker.look_due = now + worker.look_s
            self.looks.append(worker)
        due = worker.progress_at + STALL_S
        if now < due:  # the very sum that is set, so that a check at its time is not too early
            worker.check_at = due
            return
        worker.check_at = inf
        if not worker.stalled and _not_begun(worker):
            self.block(worker)
            if len(worker.held) == worker.concurrent_count:
                self.asked.append(worker)

    def _file(self, worker: Worker) -> None:
        """Put a worker where it belongs after a change."""
        idle = _is_idle(worker)
        if idle != worker.idle:
            worker.idle = idle
            if idle:
                self._idle.append(worker)
            elif self._idle[-1] is worker:
                self._idle.pop()
            else:
                self._idle.remove(worker)
        if not (idle or worker.in_rotation) and _takes_quick(worker):
            worker.in_rotation = True
            self._rotation.append(worker)


def _is_idle(worker: Worker) -> bool:
    no_inline = len(worker.held) == worker.concurrent_count and not worker.is_host
    return no_inline and worker.usable and bool(worker.free_slots)


def _has_place(worker: Worker) -> bool:
    """Whether a worker takes another request that runs beside others, if it has a slot."""
    if worker.is_host:
        return len(worker.free_slots) > KEPT_FOR_ORDERS
    return worker.concurrent_count < CONCURRENT_PER_WORKER


def _takes_quick(worker: Worker) -> bool:
    may = worker.load_ns < inf and not worker.is_host
    return may and worker.usable and bool(worker.free_slots)


def _not_begun(worker: Worker) -> list[Request]:
    state = worker.page.state
    return [
        request
        for request in worker.held.values()
        if state(request.slot, request.token) is SlotState.HELD
    ]
