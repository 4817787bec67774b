"""What a request waits for besides any free worker. Pure.

That is: the limits of its node, a worker with labels, or one certain worker.

Most requests wait for any worker and never come here (`is_plain`). The way of the others::

    gate of the node ──passed──► affinity ─────► the worker of its key
                                    │ none
                                    ├──► labels ► a worker that has them
                                    └──► any worker

Each of these is a room of the queue (queue.py), by its `RoomKey`.

Mirror: tests/broker/test_routes.py.
"""

from collections import OrderedDict
from math import inf

from .gates import Gate
from .placement import Placement, Worker, WorkerState
from .queue import ROOM_OF_GATE, ROOM_OF_LABELS, ROOM_OF_WORKER, RoomKey
from .requests import Node, Request
from .wire.codec import array_length

AFFINITIES_MAX = 10_000
"""Keys whose worker is known, those forgotten first that were used longest ago."""


class Routes:
    """The ways of requests that not any worker may run at once."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.gate_due = inf  # when a rate lets the next request pass; not before, monotonic seconds
        self._workers: OrderedDict[str, int] = OrderedDict()  # key of an affinity -> worker id
        self._keys: dict[int, int] = {}  # worker id -> number of its keys

    def enter(self, request: Request, now: float) -> bool:
        """Choose the room of a new request; `False` if it may not be given to a worker yet.

        Which is so if it may not pass the gate, or there is no worker for its key.
        """
        gate = request.node.gate
        if gate is not None and request.gate is None and not self._pass(gate, request, now):
            request.room = (ROOM_OF_GATE, request.node.name, request.inline)
            return False
        request.room = self._beyond_the_gate(request)
        return request.room is None or request.room[1] != 0

    def moves_on(self, request: Request, now: float) -> bool | None:
        """Whether the first of a room may leave it for another, which it then has.

        `None` for the rooms in which requests wait for workers, as most do.
        """
        room = request.room
        if room is None or not (room[0] == ROOM_OF_GATE or room[1] == 0):
            return None
        if room[0] == ROOM_OF_GATE:
            gate = request.node.gate
            if gate is not None and not self._pass(gate, request, now):
                return False
        request.room = self._beyond_the_gate(request)
        return request.room != room

    def enter_nested(self, request: Request) -> None:
        """Choose the room of a call that a node makes: it passes every gate, and counts."""
        gate = request.node.gate
        if gate is not None:
            request.gate = gate
            gate.enter(1)
        request.room = self._beyond_the_gate(request)

    def rooms_of(self, worker: Worker) -> tuple[RoomKey, RoomKey]:
        """Name the rooms of what waits for one certain worker, which is about to leave."""
        self._keys.pop(worker.id, None)
        return (ROOM_OF_WORKER, worker.id, False), (ROOM_OF_WORKER, worker.id, True)

    @staticmethod
    def leave(request: Request) -> None:
        """Note that no worker has a request any more, and none will."""
        if request.gate is not None:
            request.gate.leave()
            request.gate = None

    def _pass(self, gate: Gate, request: Request, now: float) -> bool:
        wait_s = gate.wait_s(now)
        if wait_s:
            self.gate_due = min(self.gate_due, now + wait_s)
            return False
        gate.enter(array_length(request.params) if request.chunk else 1)
        request.gate = gate
        return True

    def _beyond_the_gate(self, request: Request) -> RoomKey | None:
        if request.affinity is not None:
            return ROOM_OF_WORKER, self._worker_of(request.affinity, request.node), request.inline
        if request.node.labels:
            return ROOM_OF_LABELS, ",".join(sorted(request.node.labels)), request.inline
        return None

    def _worker_of(self, key: str, node: Node) -> int:
        """Find the worker of a key: the one that it had, or that with the fewest; 0 for none."""
        known = self._workers.get(key, 0)
        worker = self._placement.workers.get(known)
        if worker is not None and _may_run(worker, node):
            self._workers.move_to_end(key)
            return known
        fit = [one for one in self._placement.workers.values() if _may_run(one, node)]
        if not fit:
            return 0
        chosen = min(fit, key=lambda one: self._keys.get(one.id, 0)).id
        if known in self._keys:
            self._keys[known] -= 1
        self._workers[key] = chosen
        self._keys[chosen] = self._keys.get(chosen, 0) + 1
        if len(self._workers) > AFFINITIES_MAX:
            _, forgotten = self._workers.popitem(last=False)
            if forgotten in self._keys:
                self._keys[forgotten] -= 1
        return chosen


def _may_run(worker: Worker, node: Node) -> bool:
    is_fit = node.labels <= worker.labels and node.hosted == worker.is_host
    return is_fit and worker.state is WorkerState.READY
