"""The client for programs without an event loop.

Mirror: tests/client/test_sync.py.
"""

import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Executor, Future
from functools import partial
from time import monotonic, monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import msgspec

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.broker.wire.flows import CONTROL, FOLLOW, RUN, FlowEvent, RunLevel
from pronghorn.broker.wire.messages import Durability
from pronghorn.broker.wire.places import default_endpoint
from pronghorn.broker.wire.statistics import STATS, Statistics
from pronghorn.broker.wire.values import NodeDescription

from .admin import Admin
from .base import BaseClient
from .executor import NodeExecutor
from .flows import (
    FLOW_TARGET,
    Run,
    WorkflowLike,
    flow_params,
    name_of,
    new_run_id,
    output_of,
    read_report,
    recorded_output,
    run_extras,
    run_params,
    started_flow,
    to_start,
)
from .inbox import OnEvent
from .invocation import (
    LIST_NODES,
    REPEATS_MAX,
    NodeLike,
    Params,
    Target,
    chosen_by_broker,
    encode_arguments,
    is_worth_repeating,
    left_of,
    result_of,
    take_on_event,
    take_options,
    take_recording,
    target_of,
    timeout_ms_of,
)
from .keys import key_for
from .mapping import encode_items
from .remote import RemoteTransport
from .results import Results, each_of
from .runs import RunHandle, id_of
from .spans import spans_in_use
from .stopwatch import Extras, Stopwatch, Traced, is_recorded, recorded
from .streaming import Arrivals, Open, Stream, call_telling
from .transport import Answer, Transport

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

P = ParamSpec("P")
R = TypeVar("R")


class Client(BaseClient):
    """A client of one broker, for any number of threads.

    `call` blocks on a connection of the calling thread; the first `submit` or `executor` starts the
    one I/O thread. Connects when it is first used, or by ``with``. After a fork the child's copy
    makes connections of its own.

    Args:
        endpoint: Where the broker is; by default what ``PRONGHORN_ENDPOINT`` says, else the default
            runtime folder's.
        connect_timeout_s: How long to wait for a broker to answer.
        key: What to show at a tcp endpoint: the file that ``pronghorn keys new`` has written, or a
            `PrivateKey`; by default what ``PRONGHORN_KEY``, the path of such a file, or
            ``PRONGHORN_SECRET_KEY``, the secret itself, say. Without any the connection is neither
            encrypted nor authenticated, and brokers that want a key refuse it.
        server_key: The public key of the broker; by default that in ``PRONGHORN_SERVER_KEY`` or in
            the file. Nobody else can pretend to be the broker.

    Raises:
        InvalidArgumentError: The endpoint or the key makes no sense.
    """

    _origin: "Client | None" = None  # what `within` was asked of: its pool closes it

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        key: "str | os.PathLike[str] | PrivateKey | None" = None,
        server_key: str | None = None,
    ) -> None:
        self.endpoint = endpoint or default_endpoint()
        self._transport: Transport = RemoteTransport(
            self.endpoint, connect_timeout_s, key_for(self.endpoint, key, server_key)
        )

    def _copied(self) -> Self:
        client = super()._copied()
        client._origin = self
        return client

    @overload
    def call(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    def call(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[R]: ...
    @overload
    def call(self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def call(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def call(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Any:
        """Run a node and return its result.

        Args:
            node: Its name, or the decorated function, whose types the result then has.
            *args: Its arguments by position; by position or by name, not both, if `node` is a name.
            **kwargs: Its arguments by name, and these options: ``timeout_s``, seconds until the
                call is given up, no limit by default; ``params``, the arguments by name as a
                mapping, for a node whose parameters have the names of options; ``on_event``, called
                with each `Progress` and `Event` that the node tells, here and now: what it raises
                ends the call.

        Raises:
            PronghornError: One of its subclasses; `outcome` says whether the node ran.
        """
        return self._in_span(node, args, kwargs, self._extras)

    @overload
    def trace(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Traced[R]: ...
    @overload
    def trace(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Traced[R]: ...
    @overload
    def trace(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Traced[Any]: ...
    def trace(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Traced[Any]:
        """Make a call and tell where its time went; arguments and errors as in `call`.

        An error has the waterfall as its `waterfall`, where the broker has told of it.
        """
        stopwatch = Stopwatch(monotonic_ns)
        extras = (self._extras or Extras())._replace(stopwatch=stopwatch)
        try:
            result = self._in_span(node, args, kwargs, extras)
        except PronghornError as error:
            error.waterfall = stopwatch.waterfall()
            raise
        return Traced(result, stopwatch.waterfall())

    def _in_span(
        self,
        node: NodeLike,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extras: Extras | None,
    ) -> Any:
        """Make a call, within a span if the program uses OpenTelemetry."""
        spans = spans_in_use()
        if spans is None:
            return self._call(node, args, kwargs, extras)
        with spans.call(target_of(node).name, extras) as within:
            return self._call(node, args, kwargs, within)

    def _call(
        self,
        node: NodeLike,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extras: Extras | None,
    ) -> Any:
        target, timeout_s, params, on_event = target_of(node), self._timeout_s, None, None
        if kwargs:
            if "durability" in kwargs:
                extras = take_recording(target, kwargs, extras)
            timeout_s, params = take_options(target, kwargs, timeout_s)
            on_event = take_on_event(target, kwargs)
        encoded = encode_arguments(target, args, kwargs, params)
        timeout_ms = timeout_ms_of(timeout_s)
        if on_event is not None:
            opened = self._opener(target, encoded, timeout_ms, on_event, extras, parts=False)
            return call_telling(target, opened)
        reply, buffers = self._repeated(target, encoded, timeout_ms, extras)
        return result_of(target, reply, buffers)

    def _repeated(
        self, target: Target, encoded: Params, timeout_ms: float | None, extras: Extras | None
    ) -> Answer:
        """Make a call, and make it again when its broker is lost and that does no harm."""
        begun = 0.0 if timeout_ms is None else monotonic()
        answer = self._transport.call(target.name, encoded, timeout_ms, extras=extras)
        repeats = 0
        while is_worth_repeating(target, answer[0], extras) and repeats < REPEATS_MAX:
            repeats += 1
            left_ms = left_of(timeout_ms, begun, again=True)
            answer = self._transport.call(target.name, encoded, left_ms, extras=extras)
        return answer

    @overload
    def submit(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[list[R]]: ...
    @overload
    def submit(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[list[R]]: ...
    @overload
    def submit(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    @overload
    def submit(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    @overload
    def submit(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Future[Any]: ...
    def submit(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call and return its future; arguments as in `call`.

        Cancelling the future cancels the call. Callbacks, ``on_event`` too, run on the I/O thread.
        """
        target = target_of(node)
        timeout_s, params = take_options(target, kwargs, self._timeout_s)
        on_event = take_on_event(target, kwargs)
        extras = self._extras
        if "durability" in kwargs:
            extras = take_recording(target, kwargs, extras)
        encoded = encode_arguments(target, args, kwargs, params)
        timeout_ms, spans = timeout_ms_of(timeout_s), spans_in_use()
        if spans is None:
            return self._transport.submit(target, encoded, timeout_ms, on_event, extras)
        return spans.submit(
            target.name,
            extras,
            lambda within: self._transport.submit(target, encoded, timeout_ms, on_event, within),
        )

    @overload
    def stream(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[R]: ...
    @overload
    def stream(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Stream[R]: ...
    @overload
    def stream(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Stream[Any]: ...
    def stream(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Run a generator node; an iterator over what it yields, as it comes.

        The node is never more than 64 parts, or 1 MiB of them, ahead of who reads. Nothing is sent
        before the first part is asked for; leaving the iterator cancels the call. When all parts
        were given out its ``result`` is what the generator has returned.

        Args:
            node: Its name, or the decorated function, whose types the parts then have.
            *args: As in `call`.
            **kwargs: As in `call`; ``timeout_s`` is for the whole stream.

        Raises:
            PronghornError: The call has failed; in the iterator, behind the parts before that.
        """
        target, encoded, timeout_ms, on_event = self._prepare(node, args, kwargs)
        extras, spans = self._extras, spans_in_use()
        if spans is None:
            opener = self._opener(target, encoded, timeout_ms, on_event, extras, parts=True)
            return Stream(target, opener)
        span, extras = spans.begin(target.name, extras)
        opener = self._opener(target, encoded, timeout_ms, on_event, extras, parts=True)
        return Stream(target, spans.watched(span, opener))

    def map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout_s: float | None = None,
        chunk_size: int | None = None,
        durability: Durability | None = None,
        key: str | None = None,
    ) -> Iterator[Any]:
        """Run a node for each item on all workers; an iterator over the results as they come.

        Nothing is sent before the first result is asked for; leaving the iterator cancels the rest.

        Args:
            node: Its name, or the decorated function.
            items: Params of each run: dicts (by name), or tuples or lists (by position). Taken as
                needed, so they may be endless.
            ordered: Give results in the order of the items; else as they come.
            return_exceptions: Give a failed item's exception in its place instead of raising it.
            timeout_s: Seconds that each chunk may take; by default as long as it takes, or what
                `within` says.
            chunk_size: Items per message; by default so many as run for some milliseconds.
            durability: With ``"batched"`` or ``"sync"`` it is a run, as of `start_map`: its items
                are taken at once, it goes on without this iterator, the broker chooses chunks, and
                a result is given when it is kept. ``timeout_s`` is for its acceptance then.
            key: As for `start`: later maps with it get the results of the first.

        Raises:
            PronghornError: That of the first failed item, unless `return_exceptions`.
        """
        target = target_of(node)
        extras = recorded(self._extras, durability, key)
        if extras is not None and is_recorded(extras):
            if chunk_size is not None:
                raise chosen_by_broker(target)
            return self._recorded_map(
                node, items, extras, timeout_s, ordered=ordered, return_exceptions=return_exceptions
            )
        plan, timeout_ms = self._plan(
            target, items, ordered=ordered, chunk_size=chunk_size, timeout_s=timeout_s
        )

        def made(extras: Extras | None) -> Iterator[Any]:
            results = self._transport.map(plan, timeout_ms, extras)
            return _flatten(results, return_exceptions=return_exceptions)

        spans = spans_in_use()
        if spans is None:
            return made(extras)
        return spans.iterate(target.name, extras, made)

    def _recorded_map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        extras: Extras,
        timeout_s: float | None,
        *,
        ordered: bool,
        return_exceptions: bool,
    ) -> Iterator[Any]:
        """Start a map when its first result is asked for, and give what becomes of it."""
        handle = self.start_map(
            node, items, durability=extras.durability, key=extras.key, timeout_s=timeout_s
        )
        yield from handle.items(ordered=ordered, return_exceptions=return_exceptions)

    def run(
        self,
        workflow: WorkflowLike,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        on_event: Callable[[FlowEvent], None] | None = None,
        durability: Durability | None = None,
        key: str | None = None,
        **named: Any,
    ) -> dict[str, Any] | None:
        """Run a workflow and return its output.

        Args:
            workflow: The name of one that is served, a definition, the path of its file (a text is
                always a name), or what a builder has made.
            inputs: Its input by name, if not given as named arguments: for one whose variables have
                the names of options.
            timeout_s: Seconds until it is given up; what runs is stopped then.
            on_event: Called with each `FlowEvent`, here and now: what it raises ends the run.
            durability: ``"batched"`` or ``"sync"`` has it recorded, task by task: it survives
                whatever dies, and goes on without this client, so also when `timeout_s` is over.
            key: Of a recorded run: all requests with one key are one run.
            **named: Its input.

        Raises:
            RunFailedError: It has failed; tells how.
            CancelledError: It was cancelled.
            PronghornError: Whatever else has kept it from its end.
        """
        extras = run_extras(recorded(self._extras, durability, key), on_event)
        if extras is not None:
            encoded, name = flow_params(workflow, inputs, named), name_of(workflow)
            timeout_ms = timeout_ms_of(timeout_s or self._timeout_s)
            reply, buffers = self._repeated(FLOW_TARGET, encoded, timeout_ms, extras)
            return recorded_output(reply, buffers, name)
        if on_event is not None:
            made = named if inputs is None else inputs
            with self.submit_run(workflow, inputs=made, timeout_s=timeout_s) as run:
                for event in run.events():
                    on_event(event)
                return run.result()
        params = run_params(workflow, inputs, named, "terminal")
        options = {"params": params, "timeout_s": timeout_s or self._timeout_s}
        report = read_report(self._in_span(RUN, (), options, self._extras))
        return output_of(report, name_of(workflow))

    def submit_run(
        self,
        workflow: WorkflowLike,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        level: RunLevel = "full",
        timeout_s: float | None = None,
        **named: Any,
    ) -> Run:
        """Begin a run of a workflow and return a handle of it; arguments as in `run`.

        Args:
            workflow: As in `run`.
            inputs: As in `run`.
            level: Which events it tells: ``full``, all; ``outputs``, what tasks give; ``terminal``,
                how it ends.
            timeout_s: As in `run`.
            **named: Its input.
        """
        run_id = new_run_id()
        params = run_params(workflow, inputs, named, level, run_id)
        client = self.within(affinity=run_id)
        stream = client.stream(FOLLOW, params=params, timeout_s=timeout_s or self._timeout_s)
        return Run(name_of(workflow), run_id, stream, partial(client.call, CONTROL))

    def _opener(
        self,
        target: Target,
        encoded: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None,
        extras: Extras | None,
        *,
        parts: bool,
    ) -> Open:
        """Give what makes a call whose parts or events are taken, for the first time or again."""
        begun = 0.0

        def opened(again: bool) -> Arrivals:
            nonlocal begun
            left_ms = left_of(timeout_ms, begun, again=True) if again else timeout_ms
            begun = begun or monotonic()
            return self._transport.stream(
                target.name,
                encoded,
                left_ms,
                parts=parts,
                on_event=on_event,
                extras=extras,
            )

        return opened

    def nodes(self) -> list[NodeDescription]:
        """List the nodes that the broker serves, with their signatures and JSON Schemas."""
        return msgspec.convert(self.call(LIST_NODES), list[NodeDescription])

    @overload
    def start(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[list[R]]: ...
    @overload
    def start(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[list[R]]: ...
    @overload
    def start(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[R]: ...
    @overload
    def start(self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    @overload
    def start(
        self,
        node: str | WorkflowLike,
        /,
        *args: Any,
        durability: Durability | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> RunHandle[Any]: ...
    def start(self, node: NodeLike | WorkflowLike, /, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Start a run and return its handle, when it is sure to survive: it is kept on disk.

        It goes on without this client, and after a crash of anything: see `attach`.

        Args:
            node: Its name, or the decorated function, whose types the result then has. Or a
                workflow that is not served, as for `run`: its result is its output.
            *args: As in `call`.
            **kwargs: As in `call`; ``timeout_s`` is for the acceptance of the run, which itself has
                no deadline. Besides ``durability``, ``"sync"`` by default, or ``"batched"``: what
                is promised of its end. And ``key``: if a run was started with it before, the handle
                is that one's. Both are options of `within`, too, for calls by function.

        Raises:
            JournalError: It can't be kept.
            InvalidArgumentError: The key has a run of another node, or with other params.
            PronghornError: Another one of its subclasses.
        """
        target, flow = to_start(node)
        extras = take_recording(target, kwargs, self._extras, starts=True) or Extras()
        timeout_s, params = take_options(target, kwargs, self._timeout_s)
        if flow is None:
            encoded = encode_arguments(target, args, kwargs, params)
        else:
            encoded = started_flow(flow, args, params, kwargs)
        return self._begun(target, encoded, timeout_s, extras._replace(starts=True))

    def start_map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        *,
        durability: Durability | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> RunHandle[list[Any]]:
        """Start a map that is one run, and return its handle when it is kept on disk.

        Its items are taken at once, 100,000 at most. Workers get them in chunks, and what has ended
        is kept with each: after a crash only the others are begun.

        Args:
            node: Its name, or the decorated function.
            items: Params of each item, as for `map`.
            durability: As for `start`.
            key: As for `start`.
            timeout_s: For the acceptance of the run.

        Raises:
            PronghornError: As for `start`.
        """
        target = target_of(node)
        extras = recorded(self._extras, durability, key) or Extras()
        extras = extras._replace(starts=True, maps=True)
        encoded = encode_items(target.name, items), ()
        return self._begun(target, encoded, timeout_s, extras)

    def _begun(
        self, target: Target, encoded: Params, timeout_s: float | None, extras: Extras
    ) -> RunHandle[Any]:
        """Begin a run, again if the broker was lost and that does no harm."""
        timeout_ms = timeout_ms_of(self._timeout_s if timeout_s is None else timeout_s)
        reply, buffers = self._repeated(target, encoded, timeout_ms, extras)
        run_id = id_of(target, reply, buffers)
        return RunHandle(self._transport.call, run_id, target, is_map=extras.maps)

    def attach(
        self, run_id: str, node: NodeLike | None = None, *, is_map: bool = False
    ) -> RunHandle[Any]:
        """Return the handle of a run that was started before, by whomever.

        Nothing is asked: whether there is such a run is told by what the handle does.

        Args:
            run_id: Its id.
            node: The function, if its types are wanted for the result.
            is_map: Whether it is a map, so that its result is a list of those.
        """
        target = target_of(node or "a run")
        return RunHandle(self._transport.call, run_id, target, is_map=is_map)

    @property
    def admin(self) -> Admin:
        """Administration of the pool: its workers, its code."""
        return Admin(self.call)

    def stats(self) -> Statistics:
        """Return what the broker has counted: of each node and worker, of queue, loop and clients.

        Of an in-process pool there are only the nodes.
        """
        return msgspec.convert(self.call(STATS), Statistics)

    def ping(self, timeout_s: float = 5.0) -> float:
        """Return the seconds of one round trip to the broker itself.

        Raises:
            DeadlineExceededError: The broker is there and does not answer in time.
        """
        return self._transport.ping(timeout_s)

    def executor(self) -> Executor:
        """Return a `concurrent.futures.Executor` that runs functions of served modules."""
        return NodeExecutor(self, self._transport, timeout_ms_of(self._timeout_s))

    def close(self) -> None:
        """Close all connections; open calls, of other threads too, end with `BrokerLostError`."""
        self._transport.close()

    def __enter__(self) -> Self:
        self._transport.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _flatten(results: Generator[Results, None, None], *, return_exceptions: bool) -> Iterator[Any]:
    """Give out results one by one; raise the first failed item's error unless it is wanted."""
    try:
        for each in results:
            yield from each_of(each, return_exceptions=return_exceptions)
    finally:
        results.close()  # which cancels what is open
