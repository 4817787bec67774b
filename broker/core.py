"""The broker's decisions: admit, assign, complete, cancel, expire. Pure: no socket, no clock.

A request's states and what moves it::

    received ──admit──► queued ──assign──► held ──claim (by the worker)──► begun ──► ended
       │                  ▲ │                │                               │
       └─refuse: ended    │ └─cancel, expire │                               ├─result, failure
                          │        : ended   ├─cancel, expire: revoke, ended ├─cancel, expire
                          └──────────────────┴─take back, worker lost        └─worker lost

Contract: `handle(event, now)` for each event of a burst, then `settle(now)` once for the commands;
a `Tick` is handed in when `next_due` has come. `now` is monotonic seconds.

Invariants (cited by number in `check_invariants`):

I1. Each accepted request gets exactly one terminal reply, unless its session is gone.
I2. A request is in exactly one place: in the queue, held by one worker, or ended.
I3. A request that is reported as ``not_started`` was never begun, and is never given out again.
I4. An ended request stays in its worker's `held` until the worker's last word on it.

Mirror: tests/broker/test_core.py; joined with the other cores in tests/sim/.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from .deadlines import Deadlines
from .events import (
    Assign,
    Command,
    Event,
    Kill,
    Malformed,
    Origin,
    PeerGone,
    Probed,
    Received,
    ReceivedJson,
    Send,
    TableKnown,
    Tick,
    WorkerGone,
    WorkerSent,
    WorkerStarting,
)
from .placement import Placement, Worker
from .requests import Key, Node, ReadyQueue, Request, Session
from .statistics import BrokerStatistics, Counters, NodeStatistics, WorkerStatistics
from .verdicts import Bounds, full_details, refusal, worker_lost
from .window import estimate
from .wire.codec import DECODE_ERRORS
from .wire.errors import (
    CancelledError,
    DeadlineExceededError,
    ErrorDetails,
    Outcome,
    PronghornError,
    UnimplementedError,
)
from .wire.limits import PROTOCOL_VERSION, Limits
from .wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    CancelRun,
    ChunkDone,
    Done,
    Failed,
    Ready,
    RunCall,
    RunChunk,
    Skipped,
    unwrap_json,
    wrap_json,
)
from .wire.messages import (
    NIL,
    NO_OPTIONS,
    Ack,
    Call,
    Cancel,
    Credit,
    Error,
    Goodbye,
    Hello,
    MapChunk,
    MapResult,
    Ping,
    Pong,
    RequestId,
    Result,
    Run,
    Subscribe,
    Welcome,
    WelcomeInfo,
)
from .wire.slots import SlotState
from .wire.table import NodeTable

BANNED_PEERS_MAX = 1024  # routing ids that are remembered; a new connection has a new one


class CoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs to know.

    Attributes:
        epoch: Identity of this start of the broker.
        server: Program and version, for people.
        pid: Process id of the broker.
        limits: Limits towards clients.
        bounds: What is held at most; by default as `Bounds` has it.
        sessions: Most sessions that are kept while nothing of theirs is open.
    """

    epoch: str
    server: str
    pid: int
    limits: Limits
    bounds: Bounds | None = None
    sessions: int = 10_000


class BrokerCore:
    """The state of one broker. See the module's docstring for the contract."""

    def __init__(self, config: CoreConfig) -> None:
        limits = config.limits
        self._config = config
        self._welcome = WelcomeInfo(
            version=PROTOCOL_VERSION,
            epoch=config.epoch,
            server=config.server,
            pid=config.pid,
            limits=limits,
        )
        self._bounds = config.bounds or Bounds(grant_bytes=limits.grant_bytes)
        self._table: NodeTable | None = None
        self._nodes: list[Node] = []  # by index in the table
        self._by_name: dict[str, Node] = {}  # every name a caller may use -> node
        self._sessions: dict[bytes, Session] = {}  # routing id -> session, oldest first
        self._banned: dict[bytes, None] = {}  # routing ids that are ignored, oldest first
        self._queue = ReadyQueue()
        self._placement = Placement()
        self._deadlines: Deadlines[Request] = Deadlines(_has_ended)
        self._numbers = 0  # the request number given out last
        self._commands: list[Command] = []
        self._count = Counters()
        self._on_event: dict[type[Any], Callable[[Any, float], None]] = {
            Received: self._on_received,
            ReceivedJson: self._on_received_json,
            Malformed: self._on_malformed,
            Probed: self._on_probed,
            PeerGone: self._on_peer_gone,
            TableKnown: self._on_table_known,
            WorkerStarting: self._on_worker_starting,
            WorkerSent: self._on_worker_sent,
            WorkerGone: self._on_worker_gone,
            Tick: self._on_tick,
        }
        self._on_message: dict[type[Any], Callable[[Session, Any, Received, float], None]] = {
            Call: self._on_request,
            MapChunk: self._on_request,
            Ack: self._on_ack,
            Cancel: self._on_cancel,
            Hello: self._on_hello,
            Goodbye: self._on_goodbye,
            Ping: self._on_ping,
            Credit: self._on_reserved,
            Run: self._on_reserved,
            Subscribe: self._on_reserved,
        }
        self._on_word: dict[type[Any], Callable[[Worker, Any, WorkerSent, float], None]] = {
            Done: self._on_done,
            ChunkDone: self._on_chunk_done,
            Failed: self._on_failed,
            Skipped: self._on_skipped,
            Ready: self._on_ready,
        }

    # --- the contract ---------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> None:
        """Take in one event. Never raises on what a peer has sent."""
        self._on_event[type(event)](event, now)

    def settle(self, now: float) -> list[Command]:
        """Give ready requests to workers and return what is to be done, in order."""
        queue, placement = self._queue, self._placement
        if placement.has_stalled:
            for request in reversed(placement.take_back()):
                self._count.taken_back += 1
                queue.put_back(request)
        if queue.length:
            for rotation in queue.rotations:
                while rotation.length and (head := rotation.head()) is not None:
                    worker = placement.find(head)
                    if worker is None:
                        break
                    queue.pop_head(rotation)
                    self._assign(worker, head, now)
        commands, self._commands = self._commands, []
        return commands

    def next_due(self) -> float:
        """Tell when the next `Tick` is due, monotonic seconds; `inf` when none is."""
        due, check_at = self._deadlines.next_due, self._placement.check_at
        return due if due < check_at else check_at

    def statistics(self) -> BrokerStatistics:
        """Return a snapshot of all counters and sizes."""
        return BrokerStatistics(
            epoch=self._config.epoch,
            pid=self._config.pid,
            sessions=len(self._sessions),
            queued=self._queue.length,
            queued_bytes=self._queue.bytes,
            counters={"accepted": self._numbers, **msgspec.structs.asdict(self._count)},
            nodes=[
                NodeStatistics(node.name, node.calls, node.failures, node.estimate_ns)
                for node in self._nodes
            ],
            workers=[
                WorkerStatistics(one.id, one.pid, one.state.value, len(one.held))
                for one in self._placement.workers.values()
            ],
        )

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; tests call it after each event."""
        self._placement.check_invariants()
        self._queue.check_invariants()
        waiting = self._queue.waiting()
        held = [r for w in self._placement.workers.values() for r in w.held.values()]
        numbers = [request.number for request in (*waiting, *held)]
        assert len(numbers) == len(set(numbers)), "I2: no request is in two places"
        alive = {request.number for request in (*waiting, *held) if not request.ended}
        in_open = [r for session in self._sessions.values() for r in session.open.values()]
        assert {request.number for request in in_open} == alive, "I1, I4: open iff not ended"
        for session in self._sessions.values():
            assert session.open_bytes == sum(request.size for request in session.open.values())
            assert all(session.open[request.key] is request for request in session.open.values())

    # --- clients --------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        session = self._sessions.get(event.peer)
        if session is None:
            if event.peer in self._banned:
                return
            session = Session(event.peer, self._config.limits.stranger_requests)
            self._sessions[event.peer] = session
        self._on_message[type(event.message)](session, event.message, event, now)
        if not session.open and not session.known:
            # A stranger of whom nothing is open holds no state; its last end may have seen to it.
            self._sessions.pop(event.peer, None)

    def _on_received_json(self, event: ReceivedJson, now: float) -> None:
        request = event.request
        id_ = None if request.id is msgspec.UNSET else request.id
        if request.method == "pronghorn.ping":
            message: Call | Ping | Cancel = Ping(id_)
        elif request.method == "pronghorn.cancel":
            self._cancel_json(event, id_, now)
            return
        else:
            message = Call(id_, request.method, request.params, request.options)
        self._on_received(Received(event.peer, message, event.size, event.origin), now)

    def _cancel_json(self, event: ReceivedJson, id_: RequestId, now: float) -> None:
        target: Any = None
        try:
            params = msgspec.json.decode(event.request.params, type=dict[str, RequestId])
            target = params.get("id")
        except DECODE_ERRORS:
            target = None
        if event.peer in self._banned:
            return
        session = self._sessions.get(event.peer)
        found = session is not None and target in session.open
        if session is not None and found:
            self._on_cancel(session, Cancel(target), None, now)
        value = Raw(b"true" if found else b"false")
        self._send(event.peer, Result(id_, value), event.origin)

    def _on_malformed(self, event: Malformed, now: float) -> None:
        self._count.malformed += 1
        if event.peer not in self._banned:
            self._send(event.peer, event.error, event.origin)

    def _on_probed(self, event: Probed, now: float) -> None:
        self._banned.pop(event.peer, None)
        self._commands.append(Send(event.peer, Welcome(None, self._welcome)))

    def _on_hello(self, session: Session, message: Hello, event: Received, now: float) -> None:
        session.known = True
        session.grant = self._config.limits.grant_requests
        session.replies = session.acknowledged = 0
        self._send(session.peer, Welcome(message.id, self._welcome), event.origin)
        self._forget_idle_sessions()

    def _on_goodbye(self, session: Session, message: Goodbye, event: Received, now: float) -> None:
        session.known = False
        session.grant = self._config.limits.stranger_requests
        session.replies = session.acknowledged = 0
        self._end_session(session, gone=False)

    def _on_ping(self, session: Session, message: Ping, event: Received, now: float) -> None:
        self._send(session.peer, Pong(message.id, self._config.epoch), event.origin)

    def _on_ack(self, session: Session, message: Ack, event: Received, now: float) -> None:
        if session.acknowledged <= message.replies <= session.replies:
            session.acknowledged = message.replies
        elif session.known:
            self._count.malformed += 1

    def _on_reserved(
        self, session: Session, message: Credit | Run | Subscribe, event: Received, now: float
    ) -> None:
        name = type(message).__name__.lower()
        error = UnimplementedError(f"messages of kind {name!r} are reserved, not served yet")
        self._refuse(session.peer, message.id, error, event.origin)

    def _on_request(
        self, session: Session, message: Call | MapChunk, event: Received, now: float
    ) -> None:
        """Accept a request or refuse it. Guarded by ``scripts/bench guard``."""
        node = self._by_name.get(message.node)
        if node is None:
            self._without_node(session, message, event)
            return
        id_, options, origin, size = message.id, message.options, event.origin, event.size
        queue, bounds, open_ = self._queue, self._bounds, session.open
        if (
            options is not None
            or type(id_) is not int
            or id_ in open_
            or len(open_) + session.replies - session.acknowledged >= session.grant
            or session.open_bytes + size > bounds.grant_bytes
            or (
                queue.length
                and (
                    queue.length >= bounds.queue_requests or queue.bytes + size > bounds.queue_bytes
                )
            )
        ):
            error = refusal(
                session, queue, bounds, id_=id_, options=options or NO_OPTIONS, size=size
            )
            if error is not None:
                self._refuse(session.peer, id_, error, origin)
                return
        self._numbers = number = self._numbers + 1
        chunk = type(message) is MapChunk
        key: Key = (number,) if id_ is None else id_
        request = Request(
            number,
            key,
            id_,
            session,
            node,
            chunk,
            chunk or not node.concurrent,
            CODEC_MSGPACK if origin is None else origin.codec,
            message.items if isinstance(message, MapChunk) else message.params,
            size,
            event.buffers,
            origin,
        )
        if id_ is None:
            request.silent = True if origin is None else origin.silent
        if options is not None and options.timeout_ms is not None:
            request.due = now + options.timeout_ms / 1000
            self._deadlines.push(request.due, request)
        open_[key] = request
        session.open_bytes += size
        if not queue.length or not queue.rotation(request).length:  # nobody is before it
            worker = self._placement.find(request)
            if worker is not None:
                self._assign(worker, request, now)
                return
        queue.append(request)

    def _without_node(self, session: Session, message: Call | MapChunk, event: Received) -> None:
        """Answer a call of a name that no node has: one of our own, or unknown."""
        if message.node == "pronghorn.status":
            if message.id is not None or event.origin is not None:
                self._send_status(session.peer, message.id, event.origin)
            return
        assert self._table is not None, "the shell reads clients only once the table is known"
        error = self._table.not_found(message.node)
        self._refuse(session.peer, message.id, error, event.origin)

    def _send_status(self, peer: bytes, id_: RequestId, origin: Origin | None) -> None:
        as_json = origin is not None and origin.codec == CODEC_JSON
        encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
        self._send(peer, Result(id_, Raw(encode(self.statistics()))), origin)

    def _refuse(
        self, peer: bytes, id_: RequestId, error: PronghornError, origin: Origin | None
    ) -> None:
        self._count.refused += 1
        if id_ is not None or origin is not None:
            message = Error(id_, error.code, error.message, full_details(error))
            self._send(peer, message, origin)

    def _on_cancel(
        self, session: Session, message: Cancel, event: Received | None, now: float
    ) -> None:
        request = session.open.get(message.id)
        if request is not None:  # else it has ended, and its terminal reply is on its way
            self._give_up(request, CancelledError, "the call was cancelled")

    def _on_peer_gone(self, event: PeerGone, now: float) -> None:
        session = self._sessions.pop(event.peer, None)
        if event.banned:
            self._count.banned += 1
            self._banned[event.peer] = None
            if len(self._banned) > BANNED_PEERS_MAX:
                del self._banned[next(iter(self._banned))]
        if session is not None:
            self._end_session(session, gone=True)

    def _end_session(self, session: Session, *, gone: bool) -> None:
        """Cancel all that a client has open, without replies.

        To one that is still there an empty reply is sent where it came in an envelope, and what was
        collected of a JSON-RPC batch, which would be kept for ever otherwise.
        """
        for request in list(session.open.values()):
            request.silent = True
            if request.origin is not None:
                quiet = msgspec.structs.replace(request.origin, silent=True)
                request.origin = None if gone else quiet
            self._give_up(request, CancelledError, "the client is gone")

    def _forget_idle_sessions(self) -> None:
        """Keep the number of idle sessions below its limit, oldest first."""
        excess = len(self._sessions) - self._config.sessions
        if excess <= 0:
            return
        idle = [peer for peer, session in self._sessions.items() if not session.open]
        for peer in idle[:excess]:
            del self._sessions[peer]

    # --- ends of requests -----------------------------------------------------------------------

    def _give_up(self, request: Request, cause: type[PronghornError], why: str) -> None:
        """End a request that is cancelled or late: take it back, or cancel it where it runs."""
        outcome: Outcome = "not_started"
        worker = self._placement.workers.get(request.worker_id)
        if worker is None:
            self._queue.drop(request)
        elif not self._placement.revoke(worker, request):
            outcome = "maybe_executed"
            self._commands.append(Assign(worker.id, CancelRun(request.token)))
        request.params, request.buffers = NIL, ()  # the rest of it may stay for a while
        details = ErrorDetails(outcome=outcome, node=request.node.name)
        self._fail(request, cause(f"{request.node.name}: {why}", details))

    def _fail(self, request: Request, error: PronghornError) -> None:
        """End a request with an error."""
        id_, details = request.id, full_details(error)
        self._finish(request, Error(id_, error.code, error.message, details))
        self._count.failed += 1

    def _finish(
        self, request: Request, message: Result | MapResult | Error, buffers: Any = ()
    ) -> None:
        """Send the one terminal reply of a request (I1). Guarded by ``scripts/bench guard``."""
        assert not request.ended, "I1: one terminal reply"
        session, origin = request.session, request.origin
        del session.open[request.key]
        session.open_bytes -= request.size
        request.ended = True
        if request.due is not None:
            request.params, request.buffers = NIL, ()  # the rest of it may stay until then
        if request.silent:
            if origin is not None:
                self._commands.append(Send(session.peer, message, origin))
        else:
            if session.known:
                session.replies += 1
            self._commands.append(Send(session.peer, message, origin, buffers, session.known))
        if not session.known and not session.open:
            self._sessions.pop(session.peer, None)

    def _send(
        self,
        peer: bytes,
        message: Welcome | Result | Error | Pong,
        origin: Origin | None,
    ) -> None:
        """Send what is no answer to an accepted request."""
        if (type(message) is Result or type(message) is Error) and not (origin and origin.silent):
            session = self._sessions.get(peer)
            if session is not None and session.known:
                session.replies += 1  # the client counts, and acknowledges, all of them alike
        self._commands.append(Send(peer, message, origin))

    # --- workers --------------------------------------------------------------------------------

    def _assign(self, worker: Worker, request: Request, now: float) -> None:
        """Give a request to a worker that has room for it."""
        self._placement.give(worker, request, now)
        due = request.due
        left_ms = None if due is None else max(0.0, (due - now) * 1000)
        message: RunCall | RunChunk
        if request.chunk:
            message = RunChunk(
                request.token, request.slot, request.node.index, request.params, left_ms
            )
        else:
            params = request.params
            message = RunCall(
                request.token,
                request.slot,
                request.node.index,
                request.codec,
                wrap_json(params) if request.codec == CODEC_JSON else params,
                left_ms,
                len(request.buffers),
            )
        self._commands.append(Assign(worker.id, message, request.buffers))

    def _on_worker_starting(self, event: WorkerStarting, now: float) -> None:
        self._placement.add(event.worker_id, event.page)

    def _on_worker_sent(self, event: WorkerSent, now: float) -> None:
        worker = self._placement.workers.get(event.worker_id)
        if worker is None:
            return
        worker.progress_at = now
        if worker.stalled:
            self._placement.unblock(worker)
        self._on_word[type(event.message)](worker, event.message, event, now)

    def _on_ready(self, worker: Worker, message: Ready, event: WorkerSent, now: float) -> None:
        assert self._table is not None, "the supervisor tells the table before it starts workers"
        if message.table_digest != self._table.digest:
            reason = "its nodes differ from those of the template"
            self._commands.append(Kill(worker.id, reason))
            return
        self._placement.ready(worker, message.pid)

    def _on_done(self, worker: Worker, message: Done, event: WorkerSent, now: float) -> None:
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        node = request.node
        node.estimate_ns = estimate(node.estimate_ns, message.run_ns)
        if request.ended:
            self._count.late_results += 1
            return
        node.calls += 1
        self._count.completed += 1
        value = message.value
        if request.codec == CODEC_JSON:
            value = Raw(unwrap_json(value))
        result = Result(request.id, value, message.buffers)
        self._finish(request, result, event.buffers)

    def _on_chunk_done(
        self, worker: Worker, message: ChunkDone, event: WorkerSent, now: float
    ) -> None:
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        node = request.node
        if message.item_count:
            sample_ns = message.run_ns // message.item_count
            node.estimate_ns = estimate(node.estimate_ns, sample_ns)
        if request.ended:
            self._count.late_results += 1
            return
        node.calls += message.item_count
        self._count.completed += 1
        run_ms = message.run_ns / 1e6
        self._finish(request, MapResult(request.id, message.values, message.failures, run_ms))

    def _on_failed(self, worker: Worker, message: Failed, event: WorkerSent, now: float) -> None:
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        if request.ended:
            self._count.late_results += 1
            return
        request.node.failures += 1
        self._count.failed += 1
        error = Error(request.id, message.code, message.message, message.details)
        self._finish(request, error)

    def _on_skipped(self, worker: Worker, message: Skipped, event: WorkerSent, now: float) -> None:
        """Queue a request again when both sides saw each other at the claim, so that none ran it.

        What was revoked in time is no longer held, and `take` only frees its slot.
        """
        request = self._placement.take(worker, message.token)
        if request is not None and not request.ended:
            self._queue.put_back(request)

    def _on_worker_gone(self, event: WorkerGone, now: float) -> None:
        worker = self._placement.workers.get(event.worker_id)
        if worker is None:
            return
        self._count.workers_lost += 1
        self._placement.remove(worker)
        not_begun: list[Request] = []
        for request in worker.held.values():
            request.worker_id = 0
            if request.ended:
                continue
            state = worker.page.state(request.slot, request.token)
            if state is SlotState.HELD:
                not_begun.append(request)
            else:
                request.node.failures += 1
                self._fail(request, worker_lost(worker, request, state, event.cause))
        for request in reversed(not_begun):
            self._queue.put_back(request)

    # --- the rest -------------------------------------------------------------------------------

    def _on_table_known(self, event: TableKnown, now: float) -> None:
        table = event.table
        self._table = table
        self._nodes = [
            Node(index, node.name, node.kind != "inline", marks_items=node.kind != "async")
            for index, node in enumerate(table.nodes)
        ]
        self._by_name = {name: self._nodes[index] for name, index in table.names().items()}

    def _on_tick(self, event: Tick, now: float) -> None:
        for request in self._deadlines.pop_due(now):
            self._give_up(request, DeadlineExceededError, "the deadline has passed")
        if self._placement.check_at <= now:
            self._placement.check(now)


def _has_ended(request: Request) -> bool:
    return request.ended
