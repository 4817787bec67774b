"""Calls that nodes make (`Context.call`), placed so that no chain of them waits for itself. Pure.

A worker is a client here, with a session that has no grant: what it may ask for is bounded by the
queue. The rules that keep a chain of calls from a deadlock, however many workers there are:

1. A node that holds up its worker while it waits (`call_sync` in a plain ``def``) never waits in a
   queue: if no other worker has room at once, it runs the call itself.
2. Nor does a call of a node that runs beside others, for callers may hold all room there is.
3. So a worker's loop is held up only by what runs; and what is queued, calls of plain ``def`` nodes
   by callers that hold nothing up, waits for nothing else.

4. A workflow that is called by a node which holds up its worker runs there, all of it: a run host
   would have its tasks queued, for workers of which each may wait for a workflow.

What 1 and 2 name (`Request.here`) goes back to its caller too when it was given to a worker and
comes back from it: taken back from one that is blocked, or before its next attempt.

A worker whose generation is not served any more runs all calls of its nodes itself: they mean the
nodes that it has.

Where the caller's worker has not the labels that a node needs, such a call waits in the queue all
the same, but only if no worker in the chain of callers has any: else it is refused. The limits of a
node count its calls by nodes and hold none of them up: a chain must not wait for what it holds.

A call inherits its caller's priority and what is left of its caller's deadline, and ends with it.

Mirror: tests/broker/test_nested.py.
"""

from collections.abc import Sequence

from .lifecycle import Lifecycle
from .placement import Worker
from .requests import Node, Request, Session
from .tracing import Tracing
from .verdicts import RETRY_AFTER_MS, full_details, queue_refusal, size_refusal
from .wire.errors import CancelledError, ErrorDetails, OverloadedError, PronghornError
from .wire.limits import Bounds, Limits
from .wire.link import CancelNested, Nested, NestedFailed, RunHere
from .wire.messages import Options
from .wire.table import HOST_LABEL


class NestedCalls:
    """What is open of the calls that nodes have made."""

    def __init__(self, life: Lifecycle, limits: Limits, bounds: Bounds) -> None:
        self._life = life
        self._limits = limits
        self._bounds = bounds
        self._catalog = life.catalog
        # worker id -> session, of workers that have made calls
        self.sessions: dict[int, Session] = {}

    def on_call(self, worker: Worker, message: Nested, buffers: Sequence[bytes]) -> None:
        """Take in a call that a node makes; `worker.progress_at` is now."""
        if message.waits:
            self._life.placement.block(worker)
        error = self._take_in(worker, message, buffers)
        if error is not None:
            self._life.refusals.add(error)
            details = full_details(error)
            failed = NestedFailed(message.id, error.code, error.message, details)
            self._life.tell(worker, failed)

    def on_cancel(self, worker: Worker, message: CancelNested) -> None:
        """Cancel a call whose caller does not wait any more."""
        session = self.sessions.get(worker.id)
        request = None if session is None else session.open.get(message.id)
        if request is not None:
            why = "the call was cancelled"
            self._life.give_up(request, CancelledError, why, worker.progress_at)

    def on_worker_gone(self, worker: Worker, now: float) -> None:
        """Give up what the nodes of a worker waited for that is gone."""
        session = self.sessions.pop(worker.id, None)
        if session is None:
            return
        why = "its caller's worker is gone"
        for request in list(session.open.values()):
            request.silent = True
            if request.worker_id == worker.id:  # gone with it, so there is nothing to take back
                self._life.fail(request, CancelledError(f"{request.node.name}: {why}"))
            else:
                self._life.give_up(request, CancelledError, why, now)
        assert not session.open

    def _take_in(
        self, worker: Worker, message: Nested, buffers: Sequence[bytes]
    ) -> PronghornError | None:
        """Give a call to a worker, into the queue, or back to its caller; or tell why not."""
        life, now = self._life, worker.progress_at
        parent = worker.held.get(message.parent)
        if parent is None or parent.ended:
            why = "the node that makes the call has ended or was given up"
            details = ErrorDetails(outcome="not_started", node=message.node)
            return CancelledError(f"{message.node}: {why}", details)
        if worker.generation != self._catalog.served:  # it calls a node that it has, as it has it
            life.tell(worker, RunHere(message.id))
            return None
        node = self._catalog.by_name.get(message.node)
        if node is None:
            return self._catalog.not_found(message.node)
        if node.hosted and message.waits:  # rule 4
            life.tell(worker, RunHere(message.id))
            self._life.count.returned += 1
            return None
        size = len(message.params) + sum(map(len, buffers))
        error = size_refusal(self._limits, size=size, buffers=len(buffers))
        if error is not None:
            return error
        session = self.sessions.get(worker.id)
        if session is None:
            session = self.sessions[worker.id] = Session(b"", 0, worker_id=worker.id)
        request = Request(
            message.id,
            message.id,
            session,
            node,
            False,
            not node.concurrent,
            message.params,
            size,
            buffers,
            None,
            False,
            _earlier(parent.due, message.left_ms, now),
            now,
            depth=message.depth,
            parent=parent.token,
            tracing=Tracing.of(Options(trace=message.traceparent), now),
            here=message.waits or node.concurrent,  # rules 1 and 2
            priority=parent.priority,
        )
        if not (node.is_plain or self._enter(worker, request)):
            return _no_room(node)
        if not request.here:
            error = queue_refusal(life.queue, self._bounds, size)
            if error is not None:
                life.routes.leave(request)
                return error
            life.admit(request, now)
        elif not life.admit_at_once(request, now):
            life.routes.leave(request)
            life.tell(worker, RunHere(message.id))
            return None
        life.children.setdefault(parent.token, {})[request.key] = request
        return None

    def _enter(self, worker: Worker, request: Request) -> bool:
        """Have a call pass its node's gate; `False` if it needs a worker that it must not wait for.

        Where its caller's worker can't run it, it may wait in the queue after all, if its chain of
        calls has only workers without labels: so nobody who has one waits for another with some.
        """
        life = self._life
        # A run host that has no room is not waited for: any worker can conduct.
        if request.here and not request.node.labels - {HOST_LABEL} <= worker.labels:
            if self._has_labels(worker, request.parent):
                return life.placement.has_room_for(request) and self._pass(request)
            request.here = False
        return self._pass(request)

    def _pass(self, request: Request) -> bool:
        self._life.routes.enter_nested(request)
        return True

    def _has_labels(self, worker: Worker, token: int) -> bool:
        """Whether a worker of a chain of calls has labels, from that of the last caller upwards."""
        while not worker.labels:
            caller = worker.held.get(token)
            if caller is None or not caller.session.worker_id:
                return False
            worker, token = self._life.placement.workers[caller.session.worker_id], caller.parent
        return True


def _no_room(node: Node) -> OverloadedError:
    labels = ", ".join(sorted(node.labels))
    details = ErrorDetails(
        outcome="not_started", retryable=True, retry_after_ms=RETRY_AFTER_MS, node=node.name
    )
    return OverloadedError(
        f"{node.name}: no worker with the labels {labels} has room, and the caller's has them not",
        details,
    )


def _earlier(due: float | None, left_ms: float | None, now: float) -> float | None:
    if left_ms is None:
        return due
    own = now + left_ms / 1000
    return own if due is None else min(due, own)
