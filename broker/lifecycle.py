"""What becomes of an accepted request: queued, given to a worker, given up, ended. Pure.

A request's states and what moves it::

    received ──admit──► queued ──assign──► held ──claim (by the worker)──► begun ──► ended
       │                  ▲ │                │                               │
       └─refuse: ended    │ └─cancel, expire │                               ├─result, failure
                          │        : ended   ├─cancel, expire: revoke, ended ├─cancel, expire
                          └──────────────────┴─take back, worker lost        └─worker lost

Rules, cited by number where they are kept and checked:

I1. Each accepted request gets exactly one terminal reply, unless its session is gone.
I2. A request is in exactly one place: in the queue, held by one worker, waiting for its next
    attempt or for the journal, or ended.
I3. A request that is reported as ``not_started`` was never begun, and is never given out again.
I4. An ended request stays in its worker's `held` until the worker's last word on it.
I5. A call that a node has made is open only as long as that node runs (nested.py).
I6. A worker that goes on with what was given up, and can do nothing else meanwhile, is killed.

Mirror: tests/broker/test_lifecycle.py.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import msgspec

from .catalog import Catalog
from .deadlines import Deadlines
from .events import Assign, Command, Kill, Look, Send
from .journal.rows import format_run_id
from .placement import Placement, Worker, WorkerState
from .queue import ReadyQueue, Room
from .recorder import Recorder
from .requests import Flow, Key, Request, Run, Session, runs_alone
from .retries import retry_delay_s
from .routes import Routes
from .sessions import Sessions
from .statistics import Counters, Refusals
from .tracing import Tracing
from .verdicts import full_details
from .window import BUDGET_NS, LIGHT_BUDGET_NS, LIGHT_REQUESTS, LIGHT_S
from .wire.errors import (
    CancelledError,
    DeadlineExceededError,
    ErrorDetails,
    Outcome,
    PronghornError,
)
from .wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    AskAlive,
    CancelRun,
    NestedDone,
    NestedFailed,
    Recorded,
    RunCall,
    RunChunk,
    RunContext,
    RunHere,
    RunStream,
    Stop,
    ToWorker,
    TraceContext,
    wrap_json,
)
from .wire.messages import NIL, Error, MapResult, Result

_NO_REPLY = Result(0, NIL)  # of a request that ends without one


class Lifecycle:
    """All accepted requests, and the commands that come of them."""

    def __init__(
        self, sessions: Sessions, kill_grace_s: float, labels: frozenset[str] = frozenset()
    ) -> None:
        self._sessions = sessions
        self._kill_grace_s = kill_grace_s
        self.commands: list[Command] = []  # since the last `settle`, in order
        self.catalog = Catalog(labels)
        self.queue = ReadyQueue()
        self.placement = Placement()
        self.routes = Routes(self.placement)
        # Deadlines of requests, and of workers that run what was given up.
        self.deadlines: Deadlines[Request] = Deadlines(self._is_over)
        # Requests that wait for their next attempt, by when that is due.
        self.delayed: Deadlines[Request] = Deadlines(_is_not_delayed)
        # token of a request -> the calls that its node has open, by their keys; never empty
        self.children: dict[int, dict[Key, Request]] = {}
        # ticket -> request that others than workers answer, until they do or nobody waits: orders,
        # and what is asked of runs
        self.asked: dict[int, Request] = {}
        self._tickets = 0  # given out last
        self._orphans: list[Request] = []  # calls whose callers have ended since the last `settle`
        self._released: deque[Request] = deque()  # orders to runs that have a place now
        self._light_until = 0.0  # until when light clients are taken to be there beside heavy ones
        self.accepted = 0  # requests since the start
        self.count = Counters()
        self.refusals = Refusals(self.count)
        self.recorder = Recorder()

    def admit(self, request: Request, now: float) -> None:
        """Take in an accepted request: it goes to a worker at once or into the queue."""
        self.open(request)
        queue = self.queue
        if queue.length:
            self._note_crowd(request.session, now)
        if not request.node.is_plain or request.affinity is not None:
            self._place_special(request, now)
        elif (queue.length and queue.has_before(request, now)) or not self._assign(request, now):
            queue.append(request)

    def admit_order(self, request: Request, now: float) -> None:
        """Take in an order to a run: it goes to who conducts that before all that wait for it."""
        self.open(request)
        self._place_order(request, now)

    def hold(self, request: Request, due: float) -> None:
        """Take in an order to a run that waits for a place, until that has one or it is due."""
        self.open(request)
        request.delayed = True
        self.delayed.push(due, request)

    def _place_order(self, request: Request, now: float) -> None:
        if not self.routes.enter(request, now) or not self._assign(request, now):
            self.queue.append(request)

    def admit_at_once(self, request: Request, now: float) -> bool:
        """Take in a request if a worker has room for it, before all that wait."""
        if not self._assign_at_once(request, now):
            return False
        self.open(request)
        return True

    def tell(self, worker: Worker, message: ToWorker) -> None:
        """Have a message written to a worker's link."""
        self.commands.append(Assign(worker.id, message))

    def settle(self, now: float) -> list[Command]:
        """Give ready requests to workers and return what is to be done, in order."""
        queue, placement = self.queue, self.placement
        while self._orphans:
            orphan = self._orphans.pop()
            if not orphan.ended:
                self.give_up(orphan, CancelledError, "its caller has ended", now)
        if placement.stalled:
            taken = placement.take_back()
            self.count.taken_back += len(taken)
            self.put_back(taken, now)
        if placement.kept:
            placement.keep_none()
        if queue.length:
            for room in queue.rooms():
                self._serve_room(room, now)
        while self._released:
            order = self._released.popleft()
            if order.delayed:  # it has not ended
                order.delayed = False
                self._place_order(order, now)
        commands, self.commands = self.commands, []
        if self.recorder.has_news:
            settled = self.recorder.settle(now)
            # Those who wait for the ends of runs may ask the journal, so what was recorded up to
            # then is among these: it has earlier numbers than what was recorded after it.
            if self.commands:
                commands += self.commands
                self.commands = []
            commands += settled
        return commands

    def _serve_room(self, room: Room, now: float) -> None:
        """Give what waits in a room to workers, or on to another room, as far as they take it."""
        queue, placement, moves_on = self.queue, self.placement, self.routes.moves_on
        while (band := room.first(now)) is not None:
            head = band.head()
            key = head.room
            moves = None if key is None else moves_on(head, now)
            if moves is None:
                is_first_time = not head.token
                if not self._assign(head, now):
                    if queue.has_special:
                        placement.keep(head)
                    return
                queue.pop_head(room, band, now)
            elif moves:
                head.room, onwards = key, head.room  # it is still in the one
                queue.pop_head(room, band, now)
                head.room = onwards
                is_first_time = not head.token
                if queue.has_before(head, now) or not self._assign(head, now):
                    queue.append(head)
                    continue
            else:
                return
            if is_first_time:
                head.node.counts.waited(now - head.accepted_at)

    def _place_special(self, request: Request, now: float) -> None:
        """Take in a request that not any worker may run, or not at once."""
        may_go = self.routes.enter(request, now)
        if not may_go or self.queue.has_before(request, now) or not self._assign(request, now):
            self.queue.append(request)

    def rehouse(self, worker: Worker, now: float) -> None:
        """Have others run what waits for a worker that gets nothing more."""
        for room in self.routes.rooms_of(worker):
            for request in self.queue.take(room):
                self._place_special(request, now)

    def put_back(self, requests: Sequence[Request], now: float) -> None:
        """Queue requests that had been given to a worker, which has not begun them, in order."""
        for request in reversed(requests):
            self._requeue(request, self.queue.put_back, now)

    def _requeue(self, request: Request, put: Callable[[Request], None], now: float) -> None:
        """Have a request wait again that was given to a worker before; `put` queues it."""
        if request.here or self._is_outdated(request):
            self._place_or_return(request, now)
        elif self._renewed(request):
            request.worker_id = 0
            # The worker of its key may be gone, and its node may have other limits and labels now.
            if _waits_for_any(request):
                request.room = None
            else:
                self.routes.enter(request, now)
            put(request)

    def serve_queued(self, now: float) -> None:
        """Have what waits in the queue run by workers of the nodes that are served from now on."""
        for request in self.queue.take_all():
            if self._is_outdated(request):
                self._place_or_return(request, now)
            else:
                self.readmit(request, now)

    def readmit(self, request: Request, now: float) -> None:
        """Queue a request that has waited elsewhere, or for workers of other nodes."""
        if not self._renewed(request):
            return
        if _waits_for_any(request):
            request.room = None
            self.queue.append(request)
        else:
            self._place_special(request, now)

    def retire(self, worker: Worker, now: float) -> None:
        """Have a worker finish what it has begun and end; what it has not goes to others."""
        if worker.state in (WorkerState.DRAINING, WorkerState.CONDEMNED):
            return
        self.put_back(self.placement.drain(worker), now)
        self.rehouse(worker, now)
        self.tell(worker, Stop())

    def retry(self, request: Request, now: float) -> bool:
        """Have a request run again that was begun, if its node says that it may; else `False`."""
        policy = request.node.retry
        if policy is None or (request.flow is not None and request.flow.seq):
            return False  # its caller has parts already
        delay_s = retry_delay_s(policy, request.attempts, request.token)
        if delay_s is None or (request.due is not None and now + delay_s >= request.due):
            return False
        if not request.node.budget.take():
            return False
        self.count.retried += 1
        if self.children:
            self._orphan(request)
        request.attempts += 1
        request.worker_id = 0
        request.delayed = True
        self.delayed.push(now + delay_s, request)
        return True

    def rest(self, request: Request, due: float) -> None:
        """Have a request that a worker had wait until a time, or until it is woken."""
        if self.children:
            self._orphan(request)
        request.attempts = max(request.attempts, 2)  # it was begun
        request.worker_id = 0
        request.delayed = True
        self.delayed.push(due, request)

    def wake(self, request: Request, now: float) -> None:
        """Have a request go on that rests."""
        request.delayed = False
        self.readmit(request, now)

    def give_up(self, request: Request, cause: type[PronghornError], why: str, now: float) -> None:
        """End a request that is cancelled or late: take it back, or cancel it where it runs."""
        # An earlier attempt has begun it.
        outcome: Outcome = "not_started" if request.attempts == 1 else "maybe_executed"
        worker = self.placement.workers.get(request.worker_id)
        if request.delayed:
            request.delayed = False
        elif request.ticket:
            del self.asked[request.ticket]
            outcome = "maybe_executed"
        elif worker is None:
            self.queue.drop(request)
            if not request.token:
                request.node.counts.waited(now - request.accepted_at)
        elif not self.placement.revoke(worker, request):
            outcome = "maybe_executed"
            self.commands.append(Assign(worker.id, CancelRun(request.token)))
            request.due = now + self._kill_grace_s
            self.deadlines.push(request.due, request)
        request.params, request.buffers = NIL, ()  # the rest of it may stay for a while
        details = ErrorDetails(outcome=outcome, node=request.node.name)
        self.tell_times(request, now)
        self.fail(request, cause(f"{request.node.name}: {why}", details))

    def fail(self, request: Request, error: PronghornError) -> None:
        """End a request with an error."""
        id_, details = request.id, full_details(error)
        self.finish(request, Error(id_, error.code, error.message, details))
        request.node.counts.failed(error.code)
        self.count.failed += 1

    def finish(
        self,
        request: Request,
        message: Result | MapResult | Error,
        buffers: Sequence[bytes] = (),
    ) -> None:
        """Send the one terminal reply of a request (I1). Guarded by ``scripts/bench guard``."""
        assert not request.ended, "I1: one terminal reply"
        request.ended = True
        session = request.session
        del session.open[request.key]
        session.open_bytes -= request.size
        if request.due is not None:
            request.params, request.buffers = NIL, ()  # the rest of it may stay until then
        if request.flow is not None:
            session.parts -= request.flow.window
            session.part_bytes -= request.flow.window_bytes
        if request.keep is not None:
            self._end_recorded(request, message, buffers)
        elif request.silent:
            if request.origin is not None:
                self.commands.append(Send(session.peer, message, request.origin))
        elif session.worker_id:
            self.commands.append(Assign(session.worker_id, _nested(message), buffers))
        elif session.known:
            session.unacknowledged += 1
            self.commands.append(Send(session.peer, message, request.origin, buffers, True))
        else:
            self.commands.append(Send(session.peer, message, request.origin, buffers))
        if not (session.known or session.open):
            self._sessions.forget(session)
        if request.gate is not None and not self.placement.holds(request):
            self.routes.leave(request)
        if self.children:
            self._orphan(request)
            siblings = self.children.get(request.parent)
            if siblings is not None:
                del siblings[request.key]
                if not siblings:
                    del self.children[request.parent]

    def _end_recorded(
        self, request: Request, message: Result | MapResult | Error, buffers: Sequence[bytes]
    ) -> None:
        """Have the end of a request recorded; its reply may have to wait for that."""
        session, reply = request.session, None
        assert request.keep is not None
        if request.keep.run is not None:  # those who wait for that are told by the run
            self.recorder.end(request, message, buffers, None)
            return
        if not request.silent:
            session.unacknowledged += session.known
            reply = Send(session.peer, message, request.origin, buffers, session.known)
        elif request.origin is not None:
            reply = Send(session.peer, message, request.origin)
        self.recorder.end(request, message, buffers, reply)

    def tell_times(self, request: Request, now: float) -> None:
        """Send where the time of a request went that is about to end, if its caller asked for it.

        In no bundle, so that the terminal reply is not before it.
        """
        tracing, session = request.tracing, request.session
        if tracing is None or not tracing.times or request.silent:
            return
        if request.origin is None and not session.worker_id:
            self.commands.append(Send(session.peer, tracing.told(request.id, now)))

    def on_tick(self, now: float) -> None:
        """Deal with all whose time has come."""
        if self.routes.gate_due <= now:
            self.routes.gate_due = inf  # `settle` looks again who may pass
        if self.recorder.gather_due <= now:
            self.recorder.write_gathered()
        for request in self.deadlines.pop_due(now):
            if not request.ended:
                self.give_up(request, DeadlineExceededError, "the deadline has passed", now)
            elif request.keep is not None:
                self.recorder.give_up(request)
            elif request.due is not None and request.due <= now:  # else a later one is to come
                request.due = inf
                self._on_stuck(request, now)
        for request in self.delayed.pop_due(now):
            request.delayed = False
            self._requeue(request, self.queue.append, now)
        placement = self.placement
        if placement.check_at <= now:
            placement.check(now)
            if placement.looks:
                self.commands += [Look(worker.id, worker.given) for worker in placement.looks]
                placement.looks.clear()
            if placement.asked:
                for worker in placement.asked:
                    self.tell(worker, AskAlive())
                placement.asked.clear()

    def check_invariants(self) -> None:
        """Check what is known of the calls of nodes; for tests, after the other indexes' checks."""
        held = {token: r for w in self.placement.workers.values() for token, r in w.held.items()}
        for node in self.catalog.nodes:
            if node.gate is not None:
                everywhere = (*self.queue.waiting(), *held.values(), *self.delayed.items())
                inside = sum(request.gate is node.gate for request in everywhere)
                assert node.gate.inside == inside, "who has passed a gate leaves it once"
        for token, children in self.children.items():
            assert children, "nobody is kept as the parent of nothing"
            assert not held[token].ended, "I5: what an ended node has open is in _orphans"
            assert all(child.parent == token for child in children.values())
            assert all(child.session.open[key] is child for key, child in children.items())
        assert not any(request.here for request in self.queue.waiting())
        assert all(request.node.served for request in self.queue.waiting())
        assert all(request.ticket == ticket for ticket, request in self.asked.items())

    def open(self, request: Request) -> None:
        """Count a request among those that are open."""
        self.accepted += 1
        request.node.counts.accepted += 1
        session = request.session
        session.open[request.key] = request
        session.open_bytes += request.size
        if request.due is not None:
            self.deadlines.push(request.due, request)

    def open_asked(self, request: Request) -> None:
        """Count a request among those that are open which no worker answers; gives it a ticket."""
        self.open(request)
        self.file_asked(request)

    def file_asked(self, request: Request) -> None:
        """Give a ticket to a request that is open, in no place, and is answered by no worker."""
        self._tickets = request.ticket = self._tickets + 1
        self.asked[request.ticket] = request

    def _note_crowd(self, session: Session, now: float) -> None:
        """Let workers hold less ahead while light clients wait beside heavy ones (window.py)."""
        if len(session.open) <= LIGHT_REQUESTS:
            self._light_until = now + LIGHT_S
            self.placement.budget_ns = LIGHT_BUDGET_NS
        elif now > self._light_until:
            self.placement.budget_ns = BUDGET_NS

    def _assign(self, request: Request, now: float) -> bool:
        """Give a request to a worker; `False` when none has room for it."""
        worker = self.placement.place(request, now)
        if worker is None:
            return False
        params, origin, due = request.params, request.origin, request.due
        if request.tracing is not None:
            self._trace(request.tracing, request.token, worker, now)
        if request.keep is not None and request.keep.run is not None:
            if request.node.takes_context:
                self._tell_run(request.keep.run, request.token, worker)
            if request.node.conducted:
                self.tell(worker, _recorded(request.token, request.keep.run))
                if request.keep.run.orders:
                    self._released += request.keep.run.orders
                    request.keep.run.orders = []
        left_ms = None if due is None else max(0.0, (due - now) * 1000)
        message: RunCall | RunChunk
        if request.chunk:
            message = RunChunk(request.token, request.slot, request.node.index, params, left_ms)
        else:
            codec = CODEC_MSGPACK
            if origin is not None and origin.codec == CODEC_JSON:
                codec, params = CODEC_JSON, wrap_json(params)
            message = RunCall(
                request.token,
                request.slot,
                request.node.index,
                codec,
                params,
                left_ms,
                len(request.buffers),
                request.depth,
            )
            if request.flow is not None:
                message = _run_stream(message, request.flow)
        self.commands.append(Assign(worker.id, message, request.buffers))
        return True

    def _trace(self, tracing: Tracing, token: int, worker: Worker, now: float) -> None:
        """Note that a request is given to a worker, and tell that of its caller's trace."""
        tracing.given(now)
        if tracing.traceparent is not None:
            self.tell(worker, TraceContext(token, tracing.traceparent))

    def _tell_run(self, run: Run, token: int, worker: Worker) -> None:
        """Tell a worker of which run the request is an attempt that it is given."""
        id_ = format_run_id(run.number, run.accepted.secret)
        self.tell(worker, RunContext(token, id_, run.state.attempt, run.state.token))

    def _assign_at_once(self, request: Request, now: float) -> bool:
        """Give a request to a worker that is free for it; `False` when there is none.

        What its caller can run itself gets a place behind nothing that runs alone: however quick
        that is thought to be, the caller is quicker.
        """
        if request.here and request.inline:
            placement = self.placement
            plain = request.room is None
            if not (placement.has_idle if plain else placement.has_room_for(request)):
                return False
        return self._assign(request, now)

    def _place_or_return(self, request: Request, now: float) -> None:
        """Give a request that may not wait to another worker, or back to its caller."""
        request.worker_id = 0
        if self._is_outdated(request) or not self._assign_at_once(request, now):
            assert isinstance(request.id, int), "ids of nested calls are numbers"
            self.commands.append(Assign(request.session.worker_id, RunHere(request.id)))
            self.count.returned += 1
            request.silent = True
            self.finish(request, _NO_REPLY)

    def _is_outdated(self, request: Request) -> bool:
        """Whether a node makes this call that was started with other nodes than are served now.

        Its worker still has the node that it means, so it runs there, in its caller.
        """
        caller = self.placement.workers.get(request.session.worker_id)
        return caller is not None and caller.generation != self.catalog.served

    def _renewed(self, request: Request) -> bool:
        """See to it that a request is of a node that is served; end it if there is none."""
        if request.node.served:
            return True
        node = self.catalog.by_name.get(request.node.name)
        if node is None:
            error = self.catalog.not_found(request.node.name)
            if request.attempts > 1:
                error.details = msgspec.structs.replace(error.details, outcome="maybe_executed")
            self.fail(request, error)
            return False
        request.node = node
        request.inline = runs_alone(node, chunk=request.chunk)
        return True

    def _orphan(self, request: Request) -> None:
        """Have the calls given up that the node of a request has open."""
        children = self.children.pop(request.token, None)
        if children is not None:
            self._orphans += children.values()

    def _on_stuck(self, request: Request, now: float) -> None:
        """Have a worker killed that does not let go of what was given up (I6).

        What runs beside others keeps nobody from anything, and goes on; but a generator that is
        driven in the loop may be kept itself, and is looked at again.
        """
        worker = self.placement.workers[request.worker_id]
        alone = request.inline
        if request.node.steps:
            alone = bool(worker.page.mark(request.slot))
            if not alone:
                request.due = now + self._kill_grace_s
                self.deadlines.push(request.due, request)
                return
        self.count.stuck += 1
        if alone and worker.state in (WorkerState.READY, WorkerState.DRAINING):
            self.kill(worker, f"{request.node.name} went on after it was given up", now)

    def kill(self, worker: Worker, reason: str, now: float) -> None:
        """Have a worker killed; what it has not begun goes to others now, not at its end."""
        self.commands.append(Kill(worker.id, reason))
        self.put_back(self.placement.condemn(worker), now)
        self.rehouse(worker, now)

    def _is_over(self, request: Request) -> bool:
        return request.ended and request.keep is None and not self.placement.holds(request)


def _waits_for_any(request: Request) -> bool:
    """Whether any worker may run a request, and at once (routes.py); `admit` asks in place."""
    return request.node.is_plain and request.affinity is None


def _is_not_delayed(request: Request) -> bool:
    return not request.delayed


def _run_stream(call: RunCall, flow: Flow) -> RunStream:
    return RunStream(
        call.token,
        call.slot,
        call.node,
        call.codec,
        call.params,
        call.left_ms,
        call.buffers,
        call.depth,
        flow.takes_parts,
        flow.items,
        flow.bytes,
        flow.events,
    )


def _recorded(token: int, run: Run) -> Recorded:
    accepted = run.accepted
    return Recorded(token, format_run_id(run.number, accepted.secret), run.state.records > 1)


def _nested(message: Result | MapResult | Error) -> NestedDone | NestedFailed:
    """Make the reply to a call that a node has made."""
    assert isinstance(message.id, int), "ids of nested calls are numbers"
    if isinstance(message, Error):
        return NestedFailed(message.id, message.code, message.message, message.details)
    assert isinstance(message, Result), "nodes make calls, no chunks"
    return NestedDone(message.id, message.value, message.buffers)
