"""Which worker gets a request, and what is taken back from one that is blocked. Pure.

Rules, in order:

1. An idle worker gets the next request, the one that was busy last first: its caches are warm.
2. Quick requests (window.py) also go to workers that hold only quick ones, in turn.
3. A request of a concurrent node goes to the worker with the fewest of them.
4. What a blocked worker has not begun is taken back as soon as another one has room.

Mirror: tests/broker/test_placement.py.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf

import msgspec

from .requests import Request
from .window import (
    BUDGET_NS,
    CONCURRENT_PER_WORKER,
    OVERHEAD_NS,
    STALL_S,
    WINDOW_BYTES,
    is_quick,
)
from .wire.slots import SLOTS_PER_WORKER, SlotsPage, SlotState


class WorkerState(Enum):
    """The life of a worker: started, then ready, then gone (and out of every index)."""

    STARTING = "starting"
    READY = "ready"


class Worker(msgspec.Struct):
    """What the broker knows of one worker."""

    id: int
    page: SlotsPage
    free_slots: list[int]
    state: WorkerState = WorkerState.STARTING
    pid: int = 0
    # token -> request given to it whose last word has not come, in the order they were given
    held: dict[int, Request] = msgspec.field(default_factory=dict)
    # token -> slot of requests taken back that it has not confirmed as skipped yet
    revoked: dict[int, int] = msgspec.field(default_factory=dict)
    held_bytes: int = 0  # sizes of `held`
    load_ns: float = 0.0  # costs of the inline requests in `held`
    inline_count: int = 0  # inline requests in `held`
    slow_count: int = 0  # those of them that did not count as quick
    concurrent_count: int = 0  # requests of concurrent nodes in `held`
    progress_at: float = 0.0  # when it sent a message or, holding nothing, was given a request
    check_at: float = inf  # when to look whether it is blocked; inf while it holds nothing new
    usable: bool = False  # iff it is ready and not stalled
    stalled: bool = False  # blocked, as far as is known; gets nothing until it sends a message
    idle: bool = False  # whether it is in Placement's list of idle ones
    in_rotation: bool = False  # whether it is in Placement's rotation


class Placement:
    """All workers, and who of them can take what.

    Hot path: `find`, `give` and `take` run once per request (guarded by ``scripts/bench guard``).
    """

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}  # worker id -> worker, from its start to its end
        self._idle: list[Worker] = []  # no inline request and a free slot; last in, first out
        self._rotation: deque[Worker] = deque()  # may have room for quick ones; checked when used
        self._stalled: dict[int, Worker] = {}  # worker id -> worker, iff it is stalled
        self.check_at = inf  # no worker has an earlier `check_at`
        self._tokens = 0  # the token given out last

    def add(self, worker_id: int, page: SlotsPage) -> None:
        """Take in a worker that was started; it gets nothing before `ready`."""
        slots = list(range(SLOTS_PER_WORKER - 1, -1, -1))
        self.workers[worker_id] = Worker(worker_id, page, slots)

    def ready(self, worker: Worker, pid: int) -> None:
        """Note that a worker can take requests."""
        worker.state = WorkerState.READY
        worker.usable = True
        worker.pid = pid
        self._file(worker)

    def remove(self, worker: Worker) -> None:
        """Forget a worker that is gone; its `held` is the caller's to deal with."""
        del self.workers[worker.id]
        self._stalled.pop(worker.id, None)
        if worker.idle:
            self._idle.remove(worker)
        if worker.in_rotation:
            self._rotation.remove(worker)

    def find(self, request: Request) -> Worker | None:
        """Choose the worker for a request; `None` when none has room for it now."""
        if not request.inline:
            return self._find_concurrent()
        if self._idle:
            return self._idle[-1]
        if request.chunk or not is_quick(request.node.estimate_ns):
            return None
        rotation = self._rotation
        while rotation:
            worker = rotation[0]
            if self._has_room(worker, request):
                rotation.rotate(-1)
                return worker
            rotation.popleft()
            worker.in_rotation = False
        return None

    def give(self, worker: Worker, request: Request, now: float) -> None:
        """Record that a worker holds a request; sets the request's worker, token and slot."""
        self._tokens = token = self._tokens + 1
        request.token = token
        request.worker_id = worker.id
        request.slot = worker.free_slots.pop()
        held = worker.held
        if not held:
            worker.progress_at = now
        held[token] = request
        worker.held_bytes += request.size
        if worker.check_at == inf:
            worker.check_at = now + STALL_S
            if worker.check_at < self.check_at:
                self.check_at = worker.check_at
        if not request.inline:
            worker.concurrent_count += 1
            if not worker.free_slots:
                self._file(worker)
            return
        estimate_ns = request.node.estimate_ns
        request.cost_ns = cost_ns = (estimate_ns or 0.0) + OVERHEAD_NS
        worker.inline_count += 1
        worker.load_ns += cost_ns
        request.quick = quick = not request.chunk and is_quick(estimate_ns)
        if not quick:
            worker.slow_count += 1
        if worker.idle:
            self._file(worker)

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
        request.worker_id = 0
        self._uncount(worker, request)
        return request

    def unblock(self, worker: Worker) -> None:
        """Note that a stalled worker has sent something, so it is not blocked any more."""
        worker.stalled = False
        worker.usable = True
        del self._stalled[worker.id]
        if worker.held:  # what it begins next may block what it still holds
            worker.check_at = worker.progress_at + STALL_S
            self.check_at = min(self.check_at, worker.check_at)
        self._file(worker)

    def revoke(self, worker: Worker, request: Request) -> bool:
        """Take back a request that a worker holds; `False` when it has begun, or may have.

        Its slot stays occupied until the worker confirms that it skipped it.
        """
        if not worker.page.revoke(request.slot, request.token):
            return False
        del worker.held[request.token]
        worker.revoked[request.token] = request.slot
        request.worker_id = 0
        self._uncount(worker, request)
        return True

    def check(self, now: float) -> None:
        """Mark the workers that are blocked; to be called when `check_at` has come."""
        self.check_at = inf
        for worker in self.workers.values():
            if worker.check_at <= now:
                self._check(worker, now)
            self.check_at = min(self.check_at, worker.check_at)

    @property
    def has_stalled(self) -> bool:
        """Whether a worker is blocked, as far as is known."""
        return bool(self._stalled)

    def take_back(self) -> list[Request]:
        """Take back what blocked workers have not begun, if another worker could run it."""
        if not (self._idle or any(map(_takes_quick, self._rotation))):
            return []
        taken: list[Request] = []
        for worker in self._stalled.values():
            for request in _not_begun(worker):
                if not request.ended and self.revoke(worker, request):
                    taken.append(request)
        return taken

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        for worker in self.workers.values():
            slots = [*worker.free_slots, *worker.revoked.values()]
            slots += [request.slot for request in worker.held.values()]
            assert sorted(slots) == list(range(SLOTS_PER_WORKER)), "each slot is in one place"
            held = worker.held.values()
            inline = [request for request in held if request.inline]
            assert worker.inline_count == len(inline)
            assert worker.concurrent_count == len(held) - len(inline)
            assert worker.slow_count == sum(not request.quick for request in inline)
            assert worker.held_bytes == sum(request.size for request in held)
            assert all(request.worker_id == worker.id for request in held)
            assert worker.stalled == (worker.id in self._stalled)
            ready = worker.state is WorkerState.READY
            assert worker.usable == (ready and not worker.stalled)
            assert worker.idle == _is_idle(worker)
            assert worker.idle == (worker in self._idle)
            assert worker.in_rotation == (worker in self._rotation)
            if worker.inline_count == 0:
                assert abs(worker.load_ns) < 1
            assert self.check_at <= worker.check_at
        assert len(self._idle) <= len(self.workers)

    def _find_concurrent(self) -> Worker | None:
        best: Worker | None = None
        for worker in self.workers.values():
            if (
                worker.usable
                and not worker.slow_count
                and worker.concurrent_count < CONCURRENT_PER_WORKER
                and worker.free_slots
                and (best is None or worker.concurrent_count < best.concurrent_count)
            ):
                best = worker
        return best

    @staticmethod
    def _has_room(worker: Worker, request: Request) -> bool:
        cost_ns = (request.node.estimate_ns or 0.0) + OVERHEAD_NS
        return (
            _takes_quick(worker)
            and worker.load_ns + cost_ns <= BUDGET_NS
            and worker.held_bytes + request.size <= WINDOW_BYTES
        )

    def _uncount(self, worker: Worker, request: Request) -> None:
        """Undo what `give` counted for a request that has left `held`."""
        worker.held_bytes -= request.size
        if not request.inline:
            worker.concurrent_count -= 1
            self._file(worker)
            return
        worker.inline_count -= 1
        if request.quick:
            request.quick = False  # it may be slow by then, should it be given out again
        else:
            worker.slow_count -= 1
        if worker.inline_count == 0:
            worker.load_ns = 0.0  # sums of floats drift; this is the chance to start anew
            if worker.usable and worker.free_slots:
                worker.idle = True
                self._idle.append(worker)
        else:
            worker.load_ns -= request.cost_ns
            if not worker.in_rotation:
                self._file(worker)

    def _check(self, worker: Worker, now: float) -> None:
        due = worker.progress_at + STALL_S
        if now < due:  # the very sum that is set, so that a check at its time is not too early
            worker.check_at = due
            return
        worker.check_at = inf
        if not worker.stalled and _not_begun(worker):
            worker.stalled = True
            worker.usable = False
            self._stalled[worker.id] = worker
            self._file(worker)

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
    return worker.inline_count == 0 and worker.usable and bool(worker.free_slots)


def _takes_quick(worker: Worker) -> bool:
    return worker.slow_count == 0 and worker.usable and bool(worker.free_slots)


def _not_begun(worker: Worker) -> list[Request]:
    state = worker.page.state
    return [
        request
        for request in worker.held.values()
        if state(request.slot, request.token) is SlotState.HELD
    ]
