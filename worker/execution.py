"""Runs one request by its entry of the table: params in, last word out. No IO.

Whatever users' code raises, `SystemExit` too, comes out as a message. An exception that leaves here
struck from outside, between two steps of ours: raised by a handler that a node has installed for a
signal, or for Ctrl-C by Python's own. Nothing is kept between requests, so whoever runs a request
may make a last word of that exception (`struck`) and go on.

Mirror: tests/worker/test_execution.py.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from mmap import mmap
from secrets import token_hex
from time import monotonic, monotonic_ns
from typing import Any, NoReturn

from msgspec import Raw, structs

from pronghorn.broker.wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    PronghornError,
)
from pronghorn.broker.wire.items import ItemResults
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    Buffer,
    ChunkDone,
    Done,
    Failed,
    RunCall,
    RunChunk,
    RunContext,
    RunStream,
    unwrap_json,
    wrap_json,
)
from pronghorn.broker.wire.messages import ItemFailure
from pronghorn.broker.wire.references import may_refer
from pronghorn.broker.wire.slots import SlotsPage, area_bytes
from pronghorn.broker.wire.traceparent import SPAN_ID_BYTES, child_of
from pronghorn.broker.wire.values import encode_inline

from .context import IN_TASK, Caller, Channel, Context
from .dispatch import Entry
from .failures import cancelled
from .loops import is_cancel
from .referred import ReferredItems, Values
from .shared import SharedValues
from .streaming import AsyncSteps, PartWriter, Send, Steps

Word = tuple[Done | ChunkDone | Failed, Sequence[Buffer]]
"""The last word on a request, with its buffers."""

CONCURRENT_ITEMS = 32
"""Items of an async node that one chunk runs at once."""


_NO_BUFFERS: Sequence[Buffer] = ()


class Execution:
    """Runs requests for one worker."""

    __slots__ = (
        "_result_bytes",
        "_worker_id",
        "area",
        "caller",
        "open_channel",
        "page",
        "parents",
        "values",
    )

    def __init__(self, worker_id: int, result_bytes: int) -> None:
        self._worker_id = worker_id
        self._result_bytes = result_bytes
        self.caller: Caller | None = None  # makes the calls of nodes
        # Makes what a request's progress and events go into, for a caller that takes them.
        self.open_channel: Callable[[RunStream, Context], Channel] | None = None
        # token -> traceparent of its caller; None if runs have no spans
        self.parents: dict[int, str] | None = None
        self.page: SlotsPage | None = None  # where the broker tells what it has given up
        self.values: Values = SharedValues()  # that come by reference
        self.area: mmap | None = None  # behind the page, for the results of a chunk's items

    def call(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run a `def` node. Guarded by ``scripts/bench guard``."""
        try:
            params = self._decode(entry, message, buffers)
        except PronghornError as error:
            return failed(message.token, error), ()
        begun_ns = monotonic_ns()
        try:
            value = entry.invoke(params) if context is None else entry.invoke(params, context)
        except BaseException as error:
            run_ns = monotonic_ns() - begun_ns
            return failed(message.token, entry.node_error(error), run_ns), ()
        return self._done(entry, message, value, monotonic_ns() - begun_ns)

    async def call_async(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run an `async def` node."""
        IN_TASK.set((entry.name, message.token, context))
        try:
            params = self._decode(entry, message, buffers)
        except PronghornError as error:
            return failed(message.token, error), ()
        begun_ns = monotonic_ns()
        try:
            awaitable = entry.invoke(params) if context is None else entry.invoke(params, context)
            value = await awaitable
        except GeneratorExit:  # this coroutine is dropped unfinished
            raise
        except BaseException as error:
            run_ns = monotonic_ns() - begun_ns
            ended = cancelled(entry.name) if is_cancel(error) else entry.node_error(error)
            return failed(message.token, ended, run_ns), ()
        return self._done(entry, message, value, monotonic_ns() - begun_ns)

    def chunk(self, entry: Entry, message: RunChunk, context: Context | None) -> Word:
        """Run a `def` node once per item, in order, as long as their results are within the limit.

        Each result is kept where it survives this process.
        """
        try:
            items, is_mixed = self._decode_items(entry, message)
        except PronghornError as error:
            return failed(message.token, error), ()
        results = self._item_results(entry, message)
        remaining = iter(items)
        extra = () if context is None else (context,)
        begun_ns = monotonic_ns()
        while results.mark.items < len(items) and not results.is_full:
            try:
                if is_mixed:
                    _invoke_singly(entry, remaining, results, extra)
                else:
                    entry.invoke_items(remaining, results, *extra)
            except BaseException as error:
                results.fail(entry.node_error(error))
        run_ns = monotonic_ns() - begun_ns
        count = results.mark.items
        values, failures = results.collect()
        if count != len(items) and not (results.is_full and count < len(items)):
            return _mixed_up(entry, message, failures, run_ns), ()
        return ChunkDone(message.token, values, run_ns, count, failures or None), ()

    async def chunk_async(self, entry: Entry, message: RunChunk, context: Context | None) -> Word:
        """Run an `async def` node once per item, `CONCURRENT_ITEMS` at once."""
        IN_TASK.set((entry.name, message.token, context))
        try:
            decoded, is_mixed = self._decode_items(entry, message)
        except PronghornError as error:
            return failed(message.token, error), ()
        items = list(decoded)
        failures = _refused(items) if is_mixed else []
        values: list[Any] = [None] * len(items)
        begun = 0  # items
        extra = () if context is None else (context,)
        todo = iter(enumerate(items))
        whole = asyncio.current_task()
        assert whole is not None

        async def run() -> None:
            nonlocal begun
            for index, params in todo:
                begun += 1
                if isinstance(params, PronghornError):
                    continue
                try:
                    values[index] = await entry.invoke(params, *extra)
                except GeneratorExit:  # as above
                    raise
                except BaseException as error:
                    failures.append((index, entry.node_error(error)))
                    _forget_cancels()  # of this task: by the node itself, or it ends right here
                if whole.cancelling():  # whatever the node has made of that
                    raise asyncio.CancelledError

        # A node with a limit counts its chunks, so each of them runs one item at once.
        at_once = 1 if entry.signature.max_concurrency else CONCURRENT_ITEMS
        begun_ns = monotonic_ns()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(items))):
                    group.create_task(run())
        except asyncio.CancelledError:
            return failed(message.token, cancelled(entry.name), monotonic_ns() - begun_ns), ()
        run_ns = monotonic_ns() - begun_ns
        if begun != len(items):  # nodes can cancel any task
            return _mixed_up(entry, message, _on_wire(failures), run_ns), ()
        return self._chunk_done(entry, message, values, failures, run_ns)

    def steps(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
        send: Send,
    ) -> tuple[Steps | AsyncSteps, PartWriter]:
        """Make the generator of a streaming node ready to be driven.

        Raises:
            InvalidArgumentError: The params are refused.
        """
        params = self._decode(entry, message, buffers)
        writer = PartWriter(entry, message, self._result_bytes, send)
        steps_type = AsyncSteps if entry.kind == "async" else Steps
        return steps_type(entry, params, context, writer), writer

    def collect(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run a generator to its end, for a caller that takes all parts together."""
        try:
            steps, _ = self.steps(entry, message, buffers, context, _send_nothing)
        except PronghornError as error:
            return failed(message.token, error), ()
        assert isinstance(steps, Steps)
        while (word := steps.step()) is None:
            pass
        return word

    async def collect_async(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run an async generator to its end, as `collect`."""
        IN_TASK.set((entry.name, message.token, context))
        try:
            steps, _ = self.steps(entry, message, buffers, context, _send_nothing)
        except PronghornError as error:
            return failed(message.token, error), ()
        assert isinstance(steps, AsyncSteps)
        while (word := await steps.step()) is None:
            pass
        return word

    def context(
        self,
        entry: Entry,
        message: RunCall | RunChunk,
        within: Context | None = None,
        traceparent: str | None = None,
        run: RunContext | None = None,
    ) -> Context:
        """Make the context of a request whose node asks for one.

        Args:
            entry: The node.
            message: The request.
            within: Its caller's, if that runs it as a part of itself.
            traceparent: Its caller's otherwise, well-formed, if it is part of a trace.
            run: What it is an attempt of, if of anything.
        """
        left_ms = message.left_ms
        if within is not None:
            traceparent = within.traceparent
        if traceparent is not None:
            traceparent = child_of(traceparent, token_hex(SPAN_ID_BYTES))
        context = Context(
            request_id=str(message.token),
            node=entry.name,
            worker_id=self._worker_id,
            deadline=None if left_ms is None else monotonic() + left_ms / 1000,
            token=message.token,
            depth=message.depth if isinstance(message, RunCall) else 0,
            caller=self.caller,
            within=within,
            revoked=self._revoked(message) if within is None else None,
            traceparent=traceparent,
        )
        if run is not None:
            context.run_id, context.attempt, context.fence = run.run_id, run.attempt, run.fence
        if type(message) is RunStream and message.events and self.open_channel is not None:
            context.channel = self.open_channel(message, context)
        return context

    def _decode(self, entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Any:
        params = message.params
        if message.codec == CODEC_JSON:
            return entry.decode_json(unwrap_json(params))
        try:
            return entry.decode_with_buffers(params, buffers) if buffers else entry.decode(params)
        except InvalidArgumentError:
            if not may_refer(params):
                raise
        return entry.decode_referred(params, buffers, self.values)

    def _decode_items(
        self, entry: Entry, message: RunChunk
    ) -> tuple[list[Any] | ReferredItems, bool]:
        """Decode all items; tells whether refused ones may stand among them as their errors.

        Raises:
            InvalidArgumentError: They are refused as a whole.
        """
        try:
            return entry.decode_items(message.items), False
        except InvalidArgumentError as error:
            if may_refer(message.items):
                return entry.decode_items_referred(message.items, self.values), True
            items = entry.decode_items_singly(message.items)
            if not _refused(items) and error.details.exception is not None:  # from outside
                raise
            return items, True

    def _item_results(self, entry: Entry, message: RunChunk) -> ItemResults:
        limit = self._result_bytes
        if self.page is None or self.area is None:  # there is nobody whom they could survive
            area, words, word = mmap(-1, area_bytes(limit)), memoryview(bytearray(8)).cast("Q"), 0
        else:
            area, (words, word) = self.area, self.page.mark_word(message.slot)
        return ItemResults(
            area,
            words,
            word,
            limit=limit,
            encode=encode_inline,
            unencodable=entry.result_error,
            too_large=partial(_too_large, entry, limit),
        )

    def _revoked(self, message: RunCall | RunChunk) -> Callable[[], bool] | None:
        if self.page is None:
            return None
        return partial(self.page.revoked, message.slot, message.token)

    def _done(self, entry: Entry, message: RunCall, value: Any, run_ns: int) -> Word:
        try:
            if message.codec == CODEC_JSON:
                body, buffers = bytes(wrap_json(entry.encode_json(value))), _NO_BUFFERS
            else:
                body, buffers = entry.encode(value)
        except PronghornError as error:
            return failed(message.token, error, run_ns), ()
        size = len(body)
        if buffers:
            size += sum(memoryview(buffer).nbytes for buffer in buffers)
        if size > self._result_bytes:
            return failed(message.token, self._too_large(entry, size), run_ns), ()
        return Done(message.token, Raw(body), run_ns, len(buffers)), buffers

    def _chunk_done(
        self,
        entry: Entry,
        message: RunChunk,
        values: list[Any],
        failures: list[tuple[int, PronghornError]],
        run_ns: int,
    ) -> Word:
        body, unencodable = entry.encode_items(values)
        if len(body) > self._result_bytes:
            return failed(message.token, self._too_large(entry, len(body)), run_ns), ()
        on_wire = _on_wire([*failures, *unencodable])
        return ChunkDone(message.token, Raw(body), run_ns, len(values), on_wire or None), ()

    def _too_large(self, entry: Entry, size: int) -> NodeError:
        return _too_large(entry, self._result_bytes, size)


def failed(token: int, error: PronghornError, run_ns: int = 0) -> Failed:
    """Make the message for an error."""
    return Failed(token, error.code, error.message, error.details, run_ns)


def _send_nothing(message: object, buffers: object) -> NoReturn:
    raise AssertionError("parts are collected")


def struck(entry: Entry, token: int, error: BaseException) -> Failed:
    """Make the last word of what has left an `Execution`: nobody can say what was over by then."""
    return failed(token, _in_doubt(entry.node_error(error)))


def _mixed_up(
    entry: Entry, message: RunChunk, failures: Sequence[ItemFailure], run_ns: int
) -> Failed:
    """Make the last word on a chunk whose results can't be told apart any more.

    So it is when an exception has struck between two items, for the items are told by their number.
    """
    error = NodeError(
        f"{entry.name}: the results of a chunk are lost: an exception struck outside of the node",
        ErrorDetails(node=entry.name),
    )
    if failures and failures[-1].code == NodeError.code:
        error = NodeError(failures[-1].message, failures[-1].details)
    return failed(message.token, _in_doubt(error), run_ns)


def _on_wire(failures: list[tuple[int, PronghornError]]) -> tuple[ItemFailure, ...]:
    return tuple(
        ItemFailure(index, error.code, error.message, error.details)
        for index, error in sorted(failures, key=lambda one: one[0])
    )


def _too_large(entry: Entry, limit: int, size: int) -> NodeError:
    return NodeError(
        f"{entry.name}: the result has {size} bytes, the limit is {limit}",
        ErrorDetails(outcome="executed", node=entry.name, limit=limit),
    )


def _in_doubt(error: PronghornError) -> NodeError:
    return NodeError(error.message, structs.replace(error.details, outcome="maybe_executed"))


def _forget_cancels() -> None:
    """Have what comes next in this task run as if nobody had asked to cancel it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _refused(items: list[Any]) -> list[tuple[int, PronghornError]]:
    return [(i, item) for i, item in enumerate(items) if isinstance(item, PronghornError)]


def _invoke_singly(
    entry: Entry, remaining: Iterator[Any], results: ItemResults, extra: tuple[Context, ...]
) -> None:
    """Run items of which some were refused, and stand in the list as their errors."""
    for params in remaining:
        if isinstance(params, PronghornError):
            results.fail(params)
        else:
            entry.invoke_items((params,), results, *extra)
        if results.is_full:
            return
