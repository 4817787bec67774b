"""Orders of administrators: who may give them, and what becomes of them. Pure.

An order is an accepted request like any other, with one terminal reply; but it is neither queued
nor held by a worker: the supervisor has it, under its ticket, until it has carried it out. Whoever
stops waiting for it does not stop it.

Mirror: tests/broker/test_orders.py.
"""

import msgspec
from msgspec import Raw

from .events import Administer, Administered, Received
from .lifecycle import Lifecycle
from .requests import Key, Node, Session, answered_here
from .verdicts import ENDING, is_ending, refusal
from .wire.administration import ORDERS, ListWorkers, SeenWorker, decode_order
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
    PronghornError,
    error_from_wire,
)
from .wire.limits import Bounds, Limits
from .wire.link import CODEC_JSON
from .wire.messages import NO_OPTIONS, Call, MapChunk, Result

_NODES = {name: Node(-1, name, concurrent=True) for name in ORDERS}


class Orders:
    """Takes in orders and gives out their results.

    Args:
        life: Of all accepted requests.
        limits: Towards clients.
        bounds: What is held at most.
        administrators: How the routing ids begin of those who may give orders; b"": all may.
    """

    def __init__(
        self, life: Lifecycle, limits: Limits, bounds: Bounds, administrators: tuple[bytes, ...]
    ) -> None:
        self._life = life
        self._grant_bytes = limits.grant_bytes
        self._bounds = bounds
        self._administrators = administrators
        self._ending = False  # whether all is about to end, so that nothing is begun any more

    def accept(
        self, session: Session, message: Call | MapChunk, event: Received, key: Key, now: float
    ) -> PronghornError | None:
        """Hand an order to the supervisor, or tell why not.

        Args:
            session: Of who gives it.
            message: Names one of `ORDERS`.
            event: It came so.
            key: What the session is to know it by.
            now: Monotonic seconds.
        """
        name, options = message.node, message.options or NO_OPTIONS
        if not event.peer.startswith(self._administrators):
            return PermissionDeniedError(
                f"{name}: this broker listens on tcp, so it is administered by clients on its "
                "host that use its streams, as the command line does, unless it is started with "
                "--remote-admin",
                ErrorDetails(node=name),
            )
        if isinstance(message, MapChunk):
            return InvalidArgumentError(f"{name} can be called, not mapped")
        if self._ending:
            return is_ending(name)
        error = refusal(
            session,
            self._life.queue,
            self._bounds,
            grant_bytes=self._grant_bytes,
            id_=message.id,
            options=options,
            size=event.size,
        )
        if error is not None:
            return error
        origin = event.origin
        as_json = origin is not None and origin.codec == CODEC_JSON
        try:
            order = decode_order(name, message.params, as_json=as_json)
        except InvalidArgumentError as wrong:
            return wrong
        life = self._life
        request = answered_here(key, session, _NODES[name], message, event, options, now)
        life.open_asked(request)
        seen = self._seen() if isinstance(order, ListWorkers) else ()
        life.commands.append(Administer(request.ticket, order, seen))
        return None

    def on_answered(self, event: Administered, now: float) -> None:
        """Give out the result of an order, if somebody still waits for it."""
        request = self._life.asked.pop(event.ticket, None)
        if request is None:
            return
        if event.error is not None:
            details = ErrorDetails(outcome=event.error.outcome, node=request.node.name)
            self._life.fail(
                request, error_from_wire(event.error.code, event.error.message, details)
            )
            return
        value, origin = event.value, request.origin
        if origin is not None and origin.codec == CODEC_JSON:
            value = Raw(msgspec.json.encode(msgspec.msgpack.decode(value)))
        self._life.count.completed += 1
        self._life.finish(request, Result(request.id, value))

    def end(self) -> None:
        """Give up all orders, for all is about to end."""
        self._ending = True
        asked = self._life.asked
        orders = [request for request in asked.values() if request.node.name in ORDERS]
        for request in orders:
            del asked[request.ticket]
            details = ErrorDetails(outcome="maybe_executed", node=request.node.name)
            self._life.fail(request, OverloadedError(f"{request.node.name}: {ENDING}", details))

    def _seen(self) -> tuple[SeenWorker, ...]:
        return tuple(
            SeenWorker(one.id, one.state.value, len(one.held), one.given)
            for one in self._life.placement.workers.values()
        )
