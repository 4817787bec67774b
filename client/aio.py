"""The client for asyncio and uvloop.

Mirror: tests/client/test_aio.py.
"""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from functools import partial
from time import monotonic, monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import msgspec

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.broker.wire.flows import CONTROL, FOLLOW, RUN, FlowEvent, RunLevel
from pronghorn.broker.wire.messages import Durability, Result
from pronghorn.broker.wire.places import default_endpoint
from pronghorn.broker.wire.statistics import STATS, Statistics
from pronghorn.broker.wire.values import NodeDescription

from .admin import AsyncAdmin
from .aioremote import AsyncRemoteTransport
from .base import BaseClient
from .flows import (
    FLOW_TARGET,
    AsyncRun,
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
from .mapping import Chunk, MapPlan, encode_items
from .results import each_of
from .runs import AsyncRunHandle, id_of
from .spans import spans_in_use
from .stopwatch import Extras, Stopwatch, Traced, is_recorded, recorded
from .streaming import AsyncArrivals, AsyncOpen, AsyncStream, call_telling_async
from .transport import Answer, AsyncTransport

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

    from .otel import Spans

P = ParamSpec("P")
R = TypeVar("R")


class AsyncClient(BaseClient):
    """A client of one broker, for one event loop.

    Connects when it is first used, or by ``async with``. Many calls may be open at once; those made
    within one turn of the loop leave as one message. Cancelling an awaiting task cancels its call.

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

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        key: "str | os.PathLike[str] | PrivateKey | None" = None,
        server_key: str | None = None,
    ) -> None:
        self.endpoint = endpoint or default_endpoint()
        self._transport: AsyncTransport = AsyncRemoteTransport(
            self.endpoint, connect_timeout_s, key_for(self.endpoint, key, server_key)
        )

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
        on_event: OnEvent | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def call(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Run a node and return its result.

        No coroutine by itself: one that did nothing but wait for another would cost each call.

        Args:
            node: Its name, or the decorated function, whose types the result then has.
            *args: Its arguments by position; by position or by name, not both, if `node` is a name.
            **kwargs: Its arguments by name, and these options: ``timeout_s``, seconds until the
                call is given up, no limit by default; ``params``, the arguments by name as a
                mapping, for a node whose parameters have the names of options; ``on_event``, called
                with each `Progress` and `Event` that the node tells: what it raises ends the call.

        Raises:
            PronghornError: One of its subclasses; `outcome` says whether the node ran.
        """
        return self._in_span(node, args, kwargs, self._extras)

    @overload
    async def trace(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Traced[R]: ...
    @overload
    async def trace(
        self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Traced[R]: ...
    @overload
    async def trace(
        self,
        node: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Traced[Any]: ...
    async def trace(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> Traced[Any]:
        """Make a call and tell where its time went; arguments and errors as in `call`.

        An error has the waterfall as its `waterfall`, where the broker has told of it.
        """
        stopwatch = Stopwatch(monotonic_ns)
        extras = (self._extras or Extras())._replace(stopwatch=stopwatch)
        try:
            result = await self._in_span(node, args, kwargs, extras)
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
    ) -> Coroutine[Any, Any, Any]:
        """Make a call, within a span if the program uses OpenTelemetry."""
        spans = spans_in_use()
        if spans is None:
            return self._call(node, args, kwargs, extras)
        return self._call_in(spans, node, args, kwargs, extras)

    async def _call_in(
        self,
        spans: "Spans",
        node: NodeLike,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        extras: Extras | None,
    ) -> Any:
        with spans.call(target_of(node).name, extras) as within:
            return await self._call(node, args, kwargs, within)

    async def _call(
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
            return await call_telling_async(target, opened)
        begun = 0.0 if timeout_ms is None else monotonic()
        answer = await self._transport.call(target.name, encoded, timeout_ms, extras=extras)
        if type(answer[0]) is not Result:
            answer = await self._again(answer, target, encoded, timeout_ms, begun, extras)
        return result_of(target, *answer)

    async def _repeated(
        self, target: Target, encoded: Params, timeout_ms: float | None, extras: Extras | None
    ) -> Answer:
        """Make a call, and make it again when its broker is lost and that does no harm."""
        begun = 0.0 if timeout_ms is None else monotonic()
        answer = await self._transport.call(target.name, encoded, timeout_ms, extras=extras)
        return await self._again(answer, target, encoded, timeout_ms, begun, extras)

    async def _again(
        self,
        answer: Answer,
        target: Target,
        encoded: Params,
        timeout_ms: float | None,
        begun: float,
        extras: Extras | None,
    ) -> Answer:
        """Make a call again that has begun at a time and got that answer, if that is worth it."""
        repeats = 0
        while is_worth_repeating(target, answer[0], extras) and repeats < REPEATS_MAX:
            repeats += 1
            left_ms = left_of(timeout_ms, begun, again=True)
            answer = await self._transport.call(target.name, encoded, left_ms, extras=extras)
        return answer

    @overload
    def stream(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncStream[R]: ...
    @overload
    def stream(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncStream[R]: ...
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
    ) -> AsyncStream[Any]: ...
    def stream(self, node: NodeLike, /, *args: Any, **kwargs: Any) -> AsyncStream[Any]:
        """Run a generator node; an async iterator over what it yields, as it comes.

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
            return AsyncStream(target, opener)
        span, extras = spans.begin(target.name, extras)
        opener = self._opener(target, encoded, timeout_ms, on_event, extras, parts=True)
        return AsyncStream(target, spans.watched_async(span, opener))

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
    ) -> AsyncGenerator[Any, None]:
        """Run a node for each item on all workers; an async iterator over the results.

        Nothing is sent before the first result is asked for; leaving the iterator cancels the rest,
        at once if it is closed (`contextlib.aclosing`).

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

        def made(extras: Extras | None) -> AsyncGenerator[Any, None]:
            return _results(
                self._transport, plan, timeout_ms, extras, return_exceptions=return_exceptions
            )

        spans = spans_in_use()
        if spans is None:
            return made(extras)
        return spans.iterate_async(target.name, extras, made)

    async def _recorded_map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        extras: Extras,
        timeout_s: float | None,
        *,
        ordered: bool,
        return_exceptions: bool,
    ) -> AsyncGenerator[Any, None]:
        """Start a map when its first result is asked for, and give what becomes of it."""
        handle = await self.start_map(
            node, items, durability=extras.durability, key=extras.key, timeout_s=timeout_s
        )
        results = handle.items(ordered=ordered, return_exceptions=return_exceptions)
        async for result in results:
            yield result

    async def run(
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
            reply, buffers = await self._repeated(FLOW_TARGET, encoded, timeout_ms, extras)
            return recorded_output(reply, buffers, name)
        if on_event is not None:
            made = named if inputs is None else inputs
            async with await self.submit_run(workflow, inputs=made, timeout_s=timeout_s) as run:
                async for event in run.events():
                    on_event(event)
                return await run.result()
        params = run_params(workflow, inputs, named, "terminal")
        options = {"params": params, "timeout_s": timeout_s or self._timeout_s}
        report = read_report(await self._in_span(RUN, (), options, self._extras))
        return output_of(report, name_of(workflow))

    async def submit_run(
        self,
        workflow: WorkflowLike,
        /,
        *,
        inputs: Mapping[str, Any] | None = None,
        level: RunLevel = "full",
        timeout_s: float | None = None,
        **named: Any,
    ) -> AsyncRun:
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
        run = AsyncRun(name_of(workflow), run_id, stream, partial(client.call, CONTROL))
        return await run.begin()

    def _opener(
        self,
        target: Target,
        encoded: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None,
        extras: Extras | None,
        *,
        parts: bool,
    ) -> AsyncOpen:
        """Give what makes a call whose parts or events are taken, for the first time or again."""
        begun = 0.0

        async def opened(again: bool) -> AsyncArrivals:
            nonlocal begun
            left_ms = left_of(timeout_ms, begun, again=True) if again else timeout_ms
            begun = begun or monotonic()
            return await self._transport.stream(
                target.name,
                encoded,
                left_ms,
                parts=parts,
                on_event=on_event,
                extras=extras,
            )

        return opened

    async def nodes(self) -> list[NodeDescription]:
        """List the nodes that the broker serves, with their signatures and JSON Schemas."""
        return list(msgspec.convert(await self.call(LIST_NODES), list[NodeDescription]))

    @overload
    async def start(
        self, node: Callable[P, AsyncIterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncRunHandle[list[R]]: ...
    @overload
    async def start(
        self, node: Callable[P, Iterator[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncRunHandle[list[R]]: ...
    @overload
    async def start(
        self, node: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncRunHandle[R]: ...
    @overload
    async def start(
        self, node: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncRunHandle[R]: ...
    @overload
    async def start(
        self,
        node: str | WorkflowLike,
        /,
        *args: Any,
        durability: Durability | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncRunHandle[Any]: ...
    async def start(
        self, node: NodeLike | WorkflowLike, /, *args: Any, **kwargs: Any
    ) -> AsyncRunHandle[Any]:
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
        return await self._begun(target, encoded, timeout_s, extras._replace(starts=True))

    async def start_map(
        self,
        node: NodeLike,
        items: Iterable[Any],
        *,
        durability: Durability | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncRunHandle[list[Any]]:
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
        return await self._begun(target, encoded, timeout_s, extras)

    async def _begun(
        self, target: Target, encoded: Params, timeout_s: float | None, extras: Extras
    ) -> AsyncRunHandle[Any]:
        """Begin a run, again if the broker was lost and that does no harm."""
        timeout_ms = timeout_ms_of(self._timeout_s if timeout_s is None else timeout_s)
        reply, buffers = await self._repeated(target, encoded, timeout_ms, extras)
        run_id = id_of(target, reply, buffers)
        return AsyncRunHandle(self._transport.call, run_id, target, is_map=extras.maps)

    def attach(
        self, run_id: str, node: NodeLike | None = None, *, is_map: bool = False
    ) -> AsyncRunHandle[Any]:
        """Return the handle of a run that was started before, by whomever.

        Nothing is asked: whether there is such a run is told by what the handle does.

        Args:
            run_id: Its id.
            node: The function, if its types are wanted for the result.
            is_map: Whether it is a map, so that its result is a list of those.
        """
        target = target_of(node or "a run")
        return AsyncRunHandle(self._transport.call, run_id, target, is_map=is_map)

    @property
    def admin(self) -> AsyncAdmin:
        """Administration of the pool: its workers, its code."""
        return AsyncAdmin(self.call)

    async def stats(self) -> Statistics:
        """Return what the broker has counted: of each node and worker, of queue, loop and clients.

        Of an in-process pool there are only the nodes.
        """
        return msgspec.convert(await self.call(STATS), Statistics)

    async def ping(self, timeout_s: float = 5.0) -> float:
        """Return the seconds of one round trip to the broker itself."""
        return await self._transport.ping(timeout_s)

    async def aclose(self) -> None:
        """Close the connection; open calls end with `BrokerLostError`."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        await self._transport.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _results(
    transport: AsyncTransport,
    plan: MapPlan,
    timeout_ms: float | None,
    extras: Extras | None,
    *,
    return_exceptions: bool,
) -> AsyncGenerator[Any, None]:
    """Carry out a plan; give out results one by one; raise the first error unless it is wanted."""
    open_chunks: dict[asyncio.Task[object], Chunk] = {}
    try:
        while not plan.finished:
            for chunk in plan.next_chunks():
                running = transport.chunk(plan.node, chunk.body, timeout_ms, extras)
                open_chunks[asyncio.create_task(running)] = chunk
            if open_chunks:
                done, _ = await asyncio.wait(open_chunks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    plan.replied(open_chunks[task], task.result())
                    del open_chunks[task]
            for results in plan.results():
                for value in each_of(results, return_exceptions=return_exceptions):
                    yield value
    finally:
        for task in open_chunks:
            task.cancel()
        await asyncio.gather(*open_chunks, return_exceptions=True)
