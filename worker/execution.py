"""Runs one request by its entry of the table: params in, last word out. No IO.

Whatever users' code does comes out as a message; no exception leaves here. Nothing is kept between
requests.

Mirror: tests/worker/test_execution.py.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, monotonic_ns
from typing import Any

from msgspec import Raw

from pronghorn.broker.wire.errors import CancelledError, ErrorDetails, NodeError, PronghornError
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    Buffer,
    ChunkDone,
    Done,
    Failed,
    RunCall,
    RunChunk,
    unwrap_json,
    wrap_json,
)
from pronghorn.broker.wire.messages import ItemFailure

from .context import Context
from .dispatch import Entry

Word = tuple[Done | ChunkDone | Failed, Sequence[Buffer]]
"""The last word on a request, with its buffers."""

Marked = Callable[[Sequence[Any]], Iterator[Any]]
"""Gives out items one by one, each marked as begun just before."""

CONCURRENT_ITEMS = 32
"""Items of an async node that one chunk runs at once."""


_NO_BUFFERS: Sequence[Buffer] = ()


class Execution:
    """Runs requests for one worker."""

    __slots__ = ("_result_bytes", "_worker_id")

    def __init__(self, worker_id: int, result_bytes: int) -> None:
        self._worker_id = worker_id
        self._result_bytes = result_bytes

    def call(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run a `def` node. Guarded by ``scripts/bench guard``."""
        try:
            params = _decode(entry, message, buffers)
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
        try:
            params = _decode(entry, message, buffers)
        except PronghornError as error:
            return failed(message.token, error), ()
        begun_ns = monotonic_ns()
        try:
            awaitable = entry.invoke(params) if context is None else entry.invoke(params, context)
            value = await awaitable
        except BaseException as error:
            run_ns = monotonic_ns() - begun_ns
            ended = _cancelled(entry) if _is_cancel(error) else entry.node_error(error)
            return failed(message.token, ended, run_ns), ()
        return self._done(entry, message, value, monotonic_ns() - begun_ns)

    def chunk(
        self, entry: Entry, message: RunChunk, marked: Marked, context: Context | None
    ) -> Word:
        """Run a `def` node once per item, in order."""
        try:
            items, failures = _decode_items(entry, message)
        except PronghornError as error:
            return failed(message.token, error), ()
        values: list[Any] = []
        remaining = marked(items)
        refused = bool(failures)
        extra = () if context is None else (context,)
        begun_ns = monotonic_ns()
        while True:
            try:
                runnable = _runnable(remaining, values) if refused else remaining
                entry.invoke_items(runnable, values, *extra)
                break
            except BaseException as error:
                failures.append((len(values), entry.node_error(error)))
                values.append(None)
        run_ns = monotonic_ns() - begun_ns
        return self._chunk_done(entry, message, values, failures, run_ns)

    async def chunk_async(self, entry: Entry, message: RunChunk, context: Context | None) -> Word:
        """Run an `async def` node once per item, `CONCURRENT_ITEMS` at once."""
        try:
            items, failures = _decode_items(entry, message)
        except PronghornError as error:
            return failed(message.token, error), ()
        values: list[Any] = [None] * len(items)
        extra = () if context is None else (context,)
        todo = iter(enumerate(items))

        async def run() -> None:
            for index, params in todo:
                if isinstance(params, PronghornError):
                    continue
                try:
                    values[index] = await entry.invoke(params, *extra)
                except BaseException as error:
                    if _is_cancel(error):
                        raise
                    failures.append((index, entry.node_error(error)))

        begun_ns = monotonic_ns()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONCURRENT_ITEMS, len(items))):
                    group.create_task(run())
        except asyncio.CancelledError:
            return failed(message.token, _cancelled(entry), monotonic_ns() - begun_ns), ()
        return self._chunk_done(entry, message, values, failures, monotonic_ns() - begun_ns)

    def context(self, entry: Entry, message: RunCall | RunChunk) -> Context:
        """Make the context of a request whose node asks for one."""
        left_ms = message.left_ms
        return Context(
            request_id=str(message.token),
            node=entry.name,
            worker_id=self._worker_id,
            deadline=None if left_ms is None else monotonic() + left_ms / 1000,
        )

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
        wire_failures = tuple(
            ItemFailure(index, error.code, error.message, error.details)
            for index, error in sorted([*failures, *unencodable], key=lambda one: one[0])
        )
        done = ChunkDone(message.token, Raw(body), run_ns, len(values), wire_failures or None)
        return done, ()

    def _too_large(self, entry: Entry, size: int) -> NodeError:
        limit = self._result_bytes
        return NodeError(
            f"{entry.name}: the result has {size} bytes, the limit is {limit}",
            ErrorDetails(outcome="executed", node=entry.name, limit=limit),
        )


def failed(token: int, error: PronghornError, run_ns: int = 0) -> Failed:
    """Make the message for an error."""
    return Failed(token, error.code, error.message, error.details, run_ns)


def _is_cancel(error: BaseException) -> bool:
    """Tell whether our task is being cancelled; else the node has raised it, as any other error."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _cancelled(entry: Entry) -> CancelledError:
    details = ErrorDetails(outcome="maybe_executed", node=entry.name)
    return CancelledError(f"{entry.name}: the call was cancelled", details)


def _decode(entry: Entry, message: RunCall, buffers: Sequence[bytes]) -> Any:
    if message.codec == CODEC_JSON:
        return entry.decode_json(unwrap_json(message.params))
    if buffers:
        return entry.decode_with_buffers(message.params, buffers)
    return entry.decode(message.params)


def _decode_items(
    entry: Entry, message: RunChunk
) -> tuple[list[Any], list[tuple[int, PronghornError]]]:
    """Decode all items; those that are refused stand in the list as their errors."""
    try:
        return entry.decode_items(message.items), []
    except PronghornError:
        items = entry.decode_items_singly(message.items)
    refused = [(i, item) for i, item in enumerate(items) if isinstance(item, PronghornError)]
    return items, refused


def _runnable(remaining: Iterator[Any], values: list[Any]) -> Iterator[Any]:
    """Skip the items that were refused, leaving their places empty."""
    for params in remaining:
        if isinstance(params, PronghornError):
            values.append(None)
        else:
            yield params
