"""From what a generator yields to messages: parts that are sent, or one list of all of them. No IO.

Whoever drives a generator asks for a `step` while its writer is `ready`: that is while the caller
has given credit, or always if the parts are collected.

Mirror: tests/worker/test_streaming.py.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from time import monotonic_ns
from typing import Any, Final, TypeVar

from msgspec import Raw

from pronghorn.broker.wire.errors import ErrorDetails, NodeError, PronghornError
from pronghorn.broker.wire.limits import COLLECTED_PARTS_MAX
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    Buffer,
    Done,
    Failed,
    RunCall,
    RunStream,
    Yielded,
    wrap_json,
)
from pronghorn.broker.wire.values import encode_inline

from .context import Context
from .dispatch import Entry
from .failures import cancelled
from .loops import is_cancel

_log = logging.getLogger(__name__)

TURN_NS: Final = 1_000_000
"""Run time of a generator in the loop's thread after which others get their turn."""

Send = Callable[[Yielded, Sequence[Buffer]], None]
StreamWord = tuple[Done | Failed, Sequence[Buffer]]
Last = TypeVar("Last", Done, Failed)


class PartWriter:
    """Makes messages of the parts of one request.

    Args:
        entry: The node.
        message: The request.
        result_bytes: Largest part, and the most bytes of all that are collected.
        send: Sends a part; not used if they are collected.
    """

    __slots__ = (
        "_bytes",
        "_collected",
        "_entry",
        "_items",
        "_json",
        "_result_bytes",
        "_send",
        "_size",
        "begun_ns",
        "count",
        "on_end",
        "takes_parts",
        "token",
    )

    def __init__(self, entry: Entry, message: RunCall, result_bytes: int, send: Send) -> None:
        self.takes_parts = isinstance(message, RunStream) and message.takes_parts
        self._items, self._bytes = 0, 0  # credit
        if isinstance(message, RunStream):
            self._items, self._bytes = message.items, message.bytes
        self._entry = entry
        self.token = message.token
        self._json = message.codec == CODEC_JSON
        self._result_bytes = result_bytes
        self._send = send
        self._collected: list[bytes] = []  # parts, encoded
        self._size = 0  # their bytes
        self.count = 0  # parts so far
        self.on_end: Callable[[Done | Failed], None] | None = None  # is told the last word
        self.begun_ns = monotonic_ns()

    @property
    def ready(self) -> bool:
        """Whether the next part may be made."""
        return not self.takes_parts or (self._items > 0 and self._bytes > 0)

    def more(self, items: int, bytes_: int) -> None:
        """Take in more credit."""
        self._items += items
        self._bytes += bytes_

    def put(self, value: Any) -> None:
        """Send a part, or add it to those that are collected.

        Raises:
            NodeError: It can't be encoded, is too large, or one too many.
        """
        if self.takes_parts:
            body, buffers = self._entry.encode_part(value)
            size = len(body)
            if buffers:
                size += sum(memoryview(buffer).nbytes for buffer in buffers)
            if size > self._result_bytes:
                raise self._refusal(f"part {self.count} has {size} bytes", self._result_bytes)
            self._items -= 1
            self._bytes -= size
            self._send(Yielded(self.token, Raw(body), len(buffers)), buffers)
        else:
            self._collect(value)
        self.count += 1

    def end(self, value: Any) -> StreamWord:
        """Make the last word on a generator that has returned that value."""
        try:
            body, buffers = self._whole(value)
        except PronghornError as error:
            return self.failed(error)
        size = len(body) + sum(memoryview(buffer).nbytes for buffer in buffers)
        if size > self._result_bytes:
            return self.failed(self._refusal(f"the result has {size} bytes", self._result_bytes))
        return self._ended(Done(self.token, Raw(body), self._run_ns(), len(buffers))), buffers

    def failed(self, error: PronghornError) -> StreamWord:
        """Make the last word on a generator that has failed."""
        run_ns = self._run_ns()
        word = Failed(self.token, error.code, error.message, error.details, run_ns)
        return self._ended(word), ()

    def _ended(self, word: Last) -> Last:
        if self.on_end is not None:
            self.on_end(word)
        return word

    def _run_ns(self) -> int:
        return monotonic_ns() - self.begun_ns

    def _collect(self, value: Any) -> None:
        if self.count >= COLLECTED_PARTS_MAX:
            limit = COLLECTED_PARTS_MAX
            raise self._refusal(f"it has more than {limit} parts to collect", limit)
        body = self._entry.encode_collected(value, as_json=self._json)
        self._size += len(body) + 1
        if self._size > self._result_bytes:
            raise self._refusal("its parts have too many bytes to collect", self._result_bytes)
        self._collected.append(body)

    def _whole(self, value: Any) -> tuple[bytes, Sequence[Buffer]]:
        if self.takes_parts:
            return self._entry.encode(value)
        if self._json:
            return bytes(wrap_json(b"[" + b",".join(self._collected) + b"]")), ()
        return encode_inline([Raw(part) for part in self._collected]), ()

    def _refusal(self, what: str, limit: int) -> NodeError:
        name = self._entry.name
        details = ErrorDetails(outcome="executed", node=name, limit=limit)
        return NodeError(f"{name}: {what}, the limit is {limit}", details)


class Steps:
    """A generator between its steps; each makes one part.

    Args:
        entry: Its node.
        params: Decoded params of the call.
        context: If the node takes one.
        writer: Takes the parts.
    """

    __slots__ = ("_entry", "_generator", "_params", "_writer", "context")

    def __init__(
        self, entry: Entry, params: Any, context: Context | None, writer: PartWriter
    ) -> None:
        self._entry = entry
        self._params = params
        self.context = context
        self._writer = writer
        self._generator: Generator[Any, Any, Any] | None = None  # made at the first step

    @property
    def node(self) -> str:
        """Its node's name."""
        return self._entry.name

    @property
    def token(self) -> int:
        """Names its request."""
        return self._writer.token

    def step(self) -> StreamWord | None:
        """Make the next part; the last word if there are no more. Never raises for the node."""
        try:
            if self._generator is None:
                extra = () if self.context is None else (self.context,)
                self._generator = self._entry.invoke(self._params, *extra)
                self._params = None
            value = next(self._generator)
        except StopIteration as stop:
            return self._writer.end(stop.value)
        except BaseException as error:
            return self._writer.failed(self._entry.node_error(error))
        try:
            self._writer.put(value)
        except PronghornError as error:
            self.close()
            return self._writer.failed(error)
        return None

    def close(self) -> None:
        """Have its ``finally`` blocks run; what they raise is logged, for the call has ended."""
        if self._generator is None:
            return
        try:
            self._generator.close()
        except BaseException:
            _log.warning("%s: closing its generator failed", self._entry.name, exc_info=True)


class AsyncSteps:
    """The same for an async generator."""

    __slots__ = ("_entry", "_generator", "_writer", "context")

    def __init__(
        self, entry: Entry, params: Any, context: Context | None, writer: PartWriter
    ) -> None:
        extra = () if context is None else (context,)
        self._entry = entry
        self._writer = writer
        self.context = context
        self._generator: AsyncGenerator[Any, Any] = entry.invoke(params, *extra)

    @property
    def node(self) -> str:
        """Its node's name."""
        return self._entry.name

    @property
    def token(self) -> int:
        """Names its request."""
        return self._writer.token

    async def step(self) -> StreamWord | None:
        """Make the next part, as `Steps.step`; the last word too when the task is cancelled."""
        try:
            value = await anext(self._generator)
        except StopAsyncIteration:
            return self._writer.end(None)
        except GeneratorExit:  # the coroutine that drives it is dropped unfinished
            raise
        except BaseException as error:
            ended = cancelled(self._entry.name) if is_cancel(error) else None
            return self._writer.failed(ended or self._entry.node_error(error))
        try:
            self._writer.put(value)
        except PronghornError as error:
            await self.close()
            return self._writer.failed(error)
        return None

    async def close(self) -> None:
        """Have its ``finally`` blocks run; as `Steps.close`."""
        try:
            await self._generator.aclose()
        except Exception:
            _log.warning("%s: closing its generator failed", self._entry.name, exc_info=True)
