"""What a running node may know of its call.

A node that declares a parameter of type `Context` gets one made for each call; all others cost
nothing. Must not import anything heavy: users' programs import this module.

Mirror: tests/worker/test_context.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

P = ParamSpec("P")
R = TypeVar("R")

NodeLike = str | Callable[..., Any]

IN_TASK: ContextVar[tuple[str, int, Context | None] | None] = ContextVar(
    "pronghorn_call", default=None
)
"""Node, token and context of an async call: for the tasks that it starts, which inherit it."""


class Caller(Protocol):
    """Makes the calls of nodes; `arguments` are those by position and by name."""

    async def call(
        self,
        context: Context,
        node: NodeLike,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> Any:
        """Make a call for an ``async def``."""

    def call_sync(
        self,
        context: Context,
        node: NodeLike,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> Any:
        """Make a call for a ``def``."""


class Channel(Protocol):
    """Takes the progress and events of one call, whose caller has asked for them."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell how far the node is."""

    def emit(self, name: str, value: Any) -> None:
        """Send an event."""


class Context:
    """The call that a node runs in; injected for a parameter annotated ``Context``.

    Attributes:
        request_id: Names the call in logs; unique within the worker.
        node: Full name of the node.
        worker_id: Number of the worker it runs in.
        deadline: `time.monotonic` at which the caller gives up, `None` when it waits for ever.
        token: Names the request on the worker's link.
        depth: How many calls of nodes it lies within, 0 for a client's call.
        channel: Where progress and events go, `None` if the caller did not ask for them.
        run_id: Id of the run that it is an attempt of, the same in all attempts; `None` for a call
            without a key, which nothing repeats but a retry, and for calls of nodes.
        attempt: Number of this attempt of the run, from 1; 0 outside of one.
        fence: Higher with each attempt of the run; 0 outside of one. Whoever keeps the highest that
            he has seen of a run can refuse what an attempt does late that was given up.
        recording: Runtime: the `recorded.Attempt` that this is of a workflow's run, if it is one.
        traceparent: Names this run in the W3C trace that its caller is part of, for what it calls
            in turn; calls of other nodes carry it by themselves. `None` without a trace.
    """

    __slots__ = (
        "_caller",
        "_cancelled",
        "_log",
        "_revoked",
        "_within",
        "attempt",
        "channel",
        "deadline",
        "depth",
        "fence",
        "node",
        "recording",
        "request_id",
        "run_id",
        "token",
        "traceparent",
        "worker_id",
    )

    def __init__(
        self,
        *,
        request_id: str,
        node: str,
        worker_id: int,
        deadline: float | None = None,
        token: int = 0,
        depth: int = 0,
        caller: Caller | None = None,
        within: Context | None = None,
        revoked: Callable[[], bool] | None = None,
        traceparent: str | None = None,
        run_id: str | None = None,
        attempt: int = 0,
        fence: int = 0,
    ) -> None:
        self.request_id = request_id
        self.node = node
        self.worker_id = worker_id
        self.deadline = deadline
        self.token = token
        self.depth = depth
        self.traceparent = traceparent
        self.run_id = run_id
        self.attempt = attempt
        self.fence = fence
        self._caller = caller
        self._within = within  # the context of its caller, if it runs as a part of that
        self._revoked = revoked  # looks on the worker's page whether the broker has given it up
        self._cancelled = False
        self.channel: Channel | None = None
        self.recording: object | None = None
        self._log: LoggerAdapter[Logger] | None = None  # made when first asked for

    def __repr__(self) -> str:
        return f"<Context of {self.node}, request {self.request_id}, worker {self.worker_id}>"

    def time_left(self) -> float | None:
        """Give the seconds until the deadline, never below zero; `None` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    @overload
    async def call(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    async def call(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    async def call(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any: ...
    async def call(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Any:
        """Call another node, for an ``async def``; arguments as in `Client.call`.

        It gets what is left of this call's deadline, or less with ``timeout_s``, and is cancelled
        when this call ends. Calls may lie within each other to a depth of 100, however few workers
        there are: where no other one has room, the called node runs within this call, in its
        worker, and ends with it. Below a plain ``def`` an ``async def`` has a loop of its own then.

        Raises:
            PronghornError: One of its subclasses.
        """
        return await self._calls().call(self, node, (args, kwargs))

    @overload
    def call_sync(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    def call_sync(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    def call_sync(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def call_sync(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call_sync(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def call_sync(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Any:
        """Call another node, for a ``def``; else as `call`.

        A plain ``def`` holds up its worker meanwhile; with ``thread=True`` only its thread.
        """
        return self._calls().call_sync(self, node, (args, kwargs))

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell the caller how far this call is, if it wants to know; else it costs nothing.

        Of what the caller is too slow to take only the newest is kept. Callers of nodes
        (`Context.call`) are told nothing.

        Args:
            done: How much is done, in whatever unit.
            total: How much there is to do, if that is known.
            message: For people, up to 16 KiB.
        """
        if self.channel is not None:
            self.channel.progress(done, total, message)

    def emit(self, name: str, value: Any = None) -> None:
        """Send the caller an event, if it takes any; else it costs nothing, as `progress`.

        None is lost. A caller that is slow has some hundred under way; then a ``def`` waits for it,
        up to a second, and an ``async def`` not at all. What has to keep pace with its reader is a
        generator.

        Args:
            name: What it is, up to 16 KiB.
            value: Whatever a result could be, up to 16 KiB encoded.

        Raises:
            OverloadedError: The caller takes no more for now.
            InvalidArgumentError: It can't be encoded, or is too large.
            CancelledError: The call was given up while this waited.
        """
        if self.channel is not None:
            self.channel.emit(name, value)

    def _calls(self) -> Caller:
        if self._caller is None:
            raise RuntimeError(f"{self!r} was made by hand: it belongs to no worker to call others")
        return self._caller

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; a long ``def`` looks here now and then.

        True once the deadline has passed or the call was cancelled, and until the node has ended. A
        ``def`` that does not end within half a second from then loses its worker.
        """
        if self._cancelled or (self.deadline is not None and monotonic() >= self.deadline):
            return True
        if self._revoked is not None and self._revoked():
            return True
        return self._within is not None and self._within.cancelled

    @property
    def log(self) -> LoggerAdapter[Logger]:
        """A logger named like the node; records carry `request_id`, `node` and `worker_id`."""
        if self._log is None:
            import logging  # 6 ms at import, needed by few nodes

            self._log = logging.LoggerAdapter(
                logging.getLogger(self.node),
                {"request_id": self.request_id, "node": self.node, "worker_id": self.worker_id},
            )
        return self._log

    def mark_cancelled(self) -> None:
        """Runtime: make `cancelled` true."""
        self._cancelled = True
