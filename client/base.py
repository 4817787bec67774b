"""What the clients for threads and for an event loop have in common: the options of their calls.

Mirror: tests/client/test_base.py.
"""

from collections.abc import Iterable
from copy import copy
from types import EllipsisType
from typing import Any, NamedTuple, Self

from pronghorn.broker.wire.messages import Durability

from .inbox import OnEvent
from .invocation import (
    NodeLike,
    Params,
    Target,
    encode_arguments,
    take_on_event,
    take_options,
    target_of,
    timeout_ms_of,
)
from .mapping import MapPlan
from .stopwatch import Extras, with_options


class PreparedCall(NamedTuple):
    """A call that can be sent."""

    target: Target
    encoded: Params
    timeout_ms: float | None
    on_event: OnEvent | None


class BaseClient:
    """A client but for what carries its requests."""

    _timeout_s: float | None = None  # of calls that are given none
    _extras: Extras | None = None  # of all calls

    def within(
        self,
        timeout_s: float | EllipsisType | None = ...,
        *,
        priority: int | EllipsisType | None = ...,
        affinity: str | EllipsisType | None = ...,
        traceparent: str | EllipsisType | None = ...,
        durability: Durability | EllipsisType | None = ...,
        key: str | EllipsisType | None = ...,
    ) -> Self:
        """Return this client, its connections shared, with options for all that it calls and maps.

        ``client.within(2.0).call(add, 1, 2)`` keeps the types of a call by function, to which a
        type checker lets nobody add ``timeout_s``. What is not given stays as it is.

        Args:
            timeout_s: For calls that are given none; `None` for no limit.
            priority: 0 to 3: those of a lower number are begun first, but none waits for ever: each
                second a band that waits for its turn moves up by one. 1 by default; nodes hand it
                on to those they call.
            affinity: A key: calls of the same one go to the same worker, while it lives.
            traceparent: Of the W3C trace that the calls are part of, as the header of that name has
                it, handed to the nodes. As that is what others have sent, a malformed one is
                ignored, by the broker.
            durability: ``"batched"`` or ``"sync"`` for calls that the broker's journal records:
                ``sync`` answers when the record is kept, whatever dies then; ``batched`` at once,
                and the record is kept some milliseconds later. ``"none"``: no record. By default
                what the node says (``@node(durability=...)``), mostly ``"none"``.
            key: An idempotency key, for one call with a durability: all of the same key are one
                run, whoever makes them and when, and get its result. Giving up does not stop it.

        Raises:
            InvalidArgumentError: One of them makes no sense.
        """
        client = self._copied()
        if timeout_s is not ...:
            client._timeout_s = timeout_s
        client._extras = with_options(
            self._extras,
            priority=priority,
            affinity=affinity,
            traceparent=traceparent,
            durability=durability,
            key=key,
        )
        return client

    def _copied(self) -> Self:
        """Make a client that shares the connections of this one."""
        return copy(self)

    def _prepare(
        self, node: NodeLike, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PreparedCall:
        """Take the options out of the arguments of a stream, and encode the rest."""
        target = target_of(node)
        timeout_s, params = take_options(target, kwargs, self._timeout_s)
        on_event = take_on_event(target, kwargs)
        encoded = encode_arguments(target, args, kwargs, params)
        return PreparedCall(target, encoded, timeout_ms_of(timeout_s), on_event)

    def _plan(
        self,
        target: Target,
        items: Iterable[Any],
        *,
        ordered: bool,
        chunk_size: int | None,
        timeout_s: float | None,
    ) -> tuple[MapPlan, float | None]:
        """Make the plan of a map; gives it and the milliseconds that each chunk may take."""
        plan = MapPlan(
            target.name,
            items,
            ordered=ordered,
            chunk_size=chunk_size,
            result_type=target.result_type,
        )
        return plan, timeout_ms_of(self._timeout_s if timeout_s is None else timeout_s)
