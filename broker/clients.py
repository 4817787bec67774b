"""What clients say: requests are accepted or refused, the rest is answered at once. Pure.

Mirror: tests/broker/test_clients.py.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from .durable import Durable, asks_for_record
from .events import (
    Denied,
    Malformed,
    Origin,
    PeerGone,
    Probed,
    Received,
    ReceivedJson,
    Report,
    Send,
)
from .lifecycle import Lifecycle
from .orders import Orders
from .parts import Parts
from .requests import Key, Node, Request, Session, runs_alone
from .sessions import Sessions
from .tracing import Tracing
from .verdicts import full_details, in_quarantine, is_ending, memory_refusal, not_mapped, refusal
from .wire.administration import ORDERS
from .wire.codec import DECODE_ERRORS
from .wire.errors import (
    CancelledError,
    InvalidArgumentError,
    PronghornError,
    UnimplementedError,
)
from .wire.flows import CONTROL
from .wire.limits import Bounds
from .wire.messages import (
    NO_OPTIONS,
    Ack,
    Call,
    Cancel,
    ClientMessage,
    Credit,
    Error,
    Goodbye,
    Hello,
    MapChunk,
    Ping,
    Pong,
    RequestId,
    Result,
    Run,
    Subscribe,
    Welcome,
    WelcomeInfo,
)
from .wire.runs import RUN_CALLS, START
from .wire.statistics import STATS
from .wire.version import CONDUCTOR_NAME


class Clients:
    """Turns messages of clients into accepted requests and answers."""

    def __init__(
        self,
        sessions: Sessions,
        life: Lifecycle,
        orders: Orders,
        *,
        welcome: WelcomeInfo,
        bounds: Bounds,
        parts: Parts,
        durable: Durable,
    ) -> None:
        self._welcome = welcome
        self._bounds = bounds
        self._grant_bytes = welcome.limits.grant_bytes
        self.memory_is_tight = False  # then requests are refused
        self._parts = parts
        self._durable = durable
        self._orders = orders
        self._catalog = life.catalog
        # Every name a caller may use of nodes without a durability of their own -> node; none once
        # all is about to end.
        self._by_name: dict[str, Node] = {}
        self._durable_nodes: dict[str, Node] = {}  # those with a durability of their own
        self._ending = False
        self._sessions = sessions
        self._by_peer = sessions.by_peer
        self._life = life
        self._queue = life.queue
        self._count = life.count
        self._nameless = 0  # requests without a usable id so far
        self._on_message: dict[type[Any], Callable[[Session, Any, Received, float], None]] = {
            Ack: self._on_ack,
            Cancel: self._on_cancel,
            Hello: self._on_hello,
            Goodbye: self._on_goodbye,
            Ping: self._on_ping,
            Credit: self._on_credit,
            Run: self._on_run,
            Subscribe: self._on_reserved,
        }

    def serve(self) -> None:
        """Accept requests of the nodes that are served now."""
        if not self._ending:
            by_name = self._catalog.by_name
            self._by_name = {name: one for name, one in by_name.items() if not one.durability}
            self._durable_nodes = {name: one for name, one in by_name.items() if one.durability}

    def end(self) -> None:
        """Accept nothing more, for all is about to end."""
        self._ending = True
        self._by_name = {}
        self._durable_nodes = {}

    @property
    def have_open(self) -> bool:
        """Whether any client has a request open, or one that is not kept yet as it should be."""
        if self._durable.is_busy:
            return True
        return any(session.open for session in self._by_peer.values())

    # --- events ---------------------------------------------------------------------------------

    def on_received(self, event: Received, now: float) -> None:
        """Take in one message. Guarded by ``scripts/bench guard``."""
        session = self._by_peer.get(event.peer)
        if session is None:
            session = self._sessions.open(event.peer)
            if session is None:  # it is banned
                return
        message = event.message
        if type(message) is Call:
            self._on_request(session, message, event, message.params, now)
        elif type(message) is MapChunk:
            self._on_request(session, message, event, message.items, now)
        else:
            self._on_message[type(message)](session, message, event, now)
        if not (session.known or session.open):
            self._sessions.forget(session)

    def on_received_json(self, event: ReceivedJson, now: float) -> None:
        """Take in one JSON-RPC request."""
        request = event.request
        id_ = None if request.id is msgspec.UNSET else request.id
        message: ClientMessage
        if request.method == "pronghorn.ping":
            message = Ping(id_)
        elif request.method == "pronghorn.cancel":
            self._cancel_json(event, id_, now)
            return
        else:
            message = Call(id_, request.method, request.params, request.options)
        self.on_received(Received(event.peer, message, event.size, event.origin), now)

    def on_malformed(self, event: Malformed, now: float) -> None:
        """Answer what can't be processed."""
        self._count.malformed += 1
        if not self._sessions.is_banned(event.peer):
            self._send(event.peer, event.error, event.origin)

    def on_denied(self, event: Denied, now: float) -> None:
        """Refuse what a client's key may not do."""
        if not self._sessions.is_banned(event.peer):
            self._refuse(event.peer, event.id, event.error, event.origin)

    def on_probed(self, event: Probed, now: float) -> None:
        """Welcome a new connection."""
        self._sessions.pardon(event.peer)
        self._life.commands.append(Send(event.peer, Welcome(None, self._welcome)))

    def on_peer_gone(self, event: PeerGone, now: float) -> None:
        """Cancel all that a client has open which is gone or broke its grant."""
        session = self._sessions.gone(event.peer)
        if event.banned:
            self._count.banned += 1
            self._sessions.ban(event.peer)
        if session is not None:
            self._cancel_all(session, now, gone=True)

    # --- requests -------------------------------------------------------------------------------

    def _on_request(
        self,
        session: Session,
        message: Call | MapChunk,
        event: Received,
        params: Raw,
        now: float,
        node: Node | None = None,
    ) -> None:
        """Accept a request or refuse it. Guarded by ``scripts/bench guard``.

        Its node is found by its name, unless that was done before.
        """
        node = node or self._by_name.get(message.node)
        if node is None and session.conducts:  # for a run that is open while all drains
            node = self._catalog.by_name.get(message.node)
        if node is None:
            self._without_node(session, message, event, now)
            return
        id_, options, origin, size = message.id, message.options, event.origin, event.size
        if node.refused_until and now < node.refused_until:
            self._refuse(session.peer, id_, in_quarantine(node, now), origin)
            return
        queue = self._queue
        key: Key = id_
        silent, due, flow, tracing, records = False, None, None, None, False
        chunk = type(message) is MapChunk
        if chunk and node.streams:
            self._refuse(session.peer, id_, not_mapped(node), origin)
            return
        if (
            options is not None
            or type(id_) is not int
            or id_ in session.open
            or len(session.open) + session.unacknowledged >= session.grant
            or session.open_bytes + size > self._grant_bytes
            or (queue.length and self._is_full(size))
            or self.memory_is_tight
        ):
            error = refusal(
                session,
                queue,
                self._bounds,
                grant_bytes=self._grant_bytes,
                id_=id_,
                options=options or NO_OPTIONS,
                size=size,
            )
            if self.memory_is_tight:
                error = memory_refusal(self._bounds)
            if error is not None:
                self._refuse(session.peer, id_, error, origin)
                return
            if id_ is None:
                self._nameless += 1
                key = (self._nameless,)
                silent = origin is None or origin.silent
            if options is not None:
                if options.timeout_ms is not None:
                    due = now + options.timeout_ms / 1000
                records = asks_for_record(node, options)
                if records:
                    error = self._durable.refusal(node, options, now, chunk=chunk)
                    if error is not None:
                        self._refuse(session.peer, id_, error, origin)
                        return
                opened = self._parts.open_flow(session, id_, node, options, chunk=chunk)
                if isinstance(opened, PronghornError):
                    self._refuse(session.peer, id_, opened, origin)
                    return
                flow = opened
                tracing = Tracing.of(options, now)
        inline = runs_alone(node, chunk=chunk)
        request = Request(
            key,
            id_,
            session,
            node,
            chunk,
            inline,
            params,
            size,
            event.buffers,
            origin,
            silent,
            due,
            now,
            flow=flow,
            tracing=tracing,
        )
        if options is not None:
            request.affinity = options.affinity
            if options.priority is not None:
                request.priority = options.priority
            if records:
                self._durable.admit(request, options, now)
                return
            if node.name == CONTROL and options.affinity is not None:
                self._durable.admit_order(request, options.affinity, now)
                return
        self._life.admit(request, now)

    def _is_full(self, size: int) -> bool:
        queue, bounds = self._queue, self._bounds
        return queue.length >= bounds.queue_requests or queue.bytes + size > bounds.queue_bytes

    def _without_node(
        self, session: Session, message: Call | MapChunk, event: Received, now: float
    ) -> None:
        """Answer a call of a name that no node has: one of our own, or unknown."""
        error: PronghornError | None
        if message.node in self._durable_nodes:
            self._on_durable_node(session, message, event, now)
        elif message.node in ORDERS or message.node in RUN_CALLS or message.node == START:
            accepts = self._orders if message.node in ORDERS else self._durable
            error = accepts.accept(session, message, event, self._key_of(message), now)
            if error is not None:
                self._refuse(session.peer, message.id, error, event.origin)
        elif message.node != STATS:
            if message.node in self._catalog.by_name:
                error = is_ending(message.node)
            else:
                error = self._catalog.not_found(message.node)
            self._refuse(session.peer, message.id, error, event.origin)
        elif type(message) is MapChunk:
            error = InvalidArgumentError(f"{STATS} can be called, not mapped")
            self._refuse(session.peer, message.id, error, event.origin)
        elif message.id is not None or event.origin is not None:
            self._count_reply(session.peer, event.origin)
            self._life.commands.append(Report(session.peer, message.id, event.origin))

    def _on_durable_node(
        self, session: Session, message: Call | MapChunk, event: Received, now: float
    ) -> None:
        """Take in a request of a node that has a durability of its own.

        Such are not among the others, so that a plain call is not asked what it does not have.
        """
        node = self._durable_nodes[message.node]
        options = message.options or NO_OPTIONS
        records = type(message) is Call and options.stream is None
        if records and options.durability is None:
            options = msgspec.structs.replace(options, durability=node.durability)
            message = msgspec.structs.replace(message, options=options)
        params = message.params if isinstance(message, Call) else message.items
        self._on_request(session, message, event, params, now, node)

    def _key_of(self, message: Call | MapChunk | Run) -> Key:
        """Give what a session is to know a request by."""
        if message.id is not None:
            return message.id
        self._nameless += 1
        return (self._nameless,)

    def _refuse(
        self, peer: bytes, id_: RequestId, error: PronghornError, origin: Origin | None
    ) -> None:
        self._life.refusals.add(error)
        if id_ is not None or origin is not None:
            message = Error(id_, error.code, error.message, full_details(error))
            self._send(peer, message, origin)

    def _send(
        self,
        peer: bytes,
        message: Welcome | Result | Error | Pong,
        origin: Origin | None,
    ) -> None:
        """Send what is no answer to an accepted request."""
        if type(message) is Result or type(message) is Error:
            self._count_reply(peer, origin)
        self._life.commands.append(Send(peer, message, origin))

    def _count_reply(self, peer: bytes, origin: Origin | None) -> None:
        """Count a terminal reply: the client counts, and acknowledges, all alike."""
        session = self._by_peer.get(peer)
        if session is not None and session.known and not (origin and origin.silent):
            session.unacknowledged += 1

    # --- all else -------------------------------------------------------------------------------

    def _on_hello(self, session: Session, message: Hello, event: Received, now: float) -> None:
        session.conducts = message.client == CONDUCTOR_NAME
        suspects = self._sessions.hello(session)
        self._send(session.peer, Welcome(message.id, self._welcome), event.origin)
        for suspect in suspects:
            self._send(suspect.peer, Pong(None, self._welcome.epoch), None)

    def _on_goodbye(self, session: Session, message: Goodbye, event: Received, now: float) -> None:
        self._sessions.goodbye(session)
        self._cancel_all(session, now, gone=False)

    def _on_ping(self, session: Session, message: Ping, event: Received, now: float) -> None:
        self._send(session.peer, Pong(message.id, self._welcome.epoch), event.origin)

    def _on_ack(self, session: Session, message: Ack, event: Received, now: float) -> None:
        if session.acknowledged <= message.replies <= session.replies:
            session.unacknowledged -= message.replies - session.acknowledged
            session.acknowledged = message.replies
        elif session.known:
            self._count.malformed += 1

    def _on_credit(self, session: Session, message: Credit, event: Received, now: float) -> None:
        self._parts.on_credit(session, message, now)

    def _on_run(self, session: Session, message: Run, event: Received, now: float) -> None:
        error: PronghornError | None
        if self.memory_is_tight:
            error = memory_refusal(self._bounds)
        else:
            key = self._key_of(message)
            error = self._durable.accept(session, message, event, key, now)
        if error is not None:
            self._refuse(session.peer, message.id, error, event.origin)

    def _on_reserved(
        self, session: Session, message: Subscribe, event: Received, now: float
    ) -> None:
        name = type(message).__name__.lower()
        error = UnimplementedError(f"messages of kind {name!r} are reserved, not served yet")
        self._refuse(session.peer, message.id, error, event.origin)

    def _on_cancel(
        self, session: Session, message: Cancel, event: Received | None, now: float
    ) -> None:
        request = session.open.get(message.id)
        if request is not None:  # else it has ended, and its terminal reply is on its way
            self._life.give_up(request, CancelledError, "the call was cancelled", now)

    def _cancel_json(self, event: ReceivedJson, id_: RequestId, now: float) -> None:
        target: Any = None
        try:
            params = msgspec.json.decode(event.request.params, type=dict[str, RequestId])
            target = params.get("id")
        except DECODE_ERRORS:
            target = None
        if self._sessions.is_banned(event.peer):
            return
        session = self._by_peer.get(event.peer)
        found = session is not None and target in session.open
        if session is not None and found:
            self._on_cancel(session, Cancel(target), None, now)
        value = Raw(b"true" if found else b"false")
        self._send(event.peer, Result(id_, value), event.origin)

    def _cancel_all(self, session: Session, now: float, *, gone: bool) -> None:
        """Cancel all that a client has open, without replies.

        To one that is still there an empty reply is sent where it came in an envelope, and what was
        collected of a JSON-RPC batch, which would be kept for ever otherwise.
        """
        for request in list(session.open.values()):
            request.silent = True
            if request.origin is not None:
                quiet = msgspec.structs.replace(request.origin, silent=True)
                request.origin = None if gone else quiet
            self._life.give_up(request, CancelledError, "the client is gone", now)
