"""Runs requests within spans of OpenTelemetry, where users' code has configured that.

A worker has this in place of `Execution` if a provider of tracers is there when its start hooks
have run; it is not looked for again. A run is a child of the call that its caller tells of, else of
the current span, and is the current one while the node runs; but for generators, whose steps lie
apart. What the node calls by its context becomes a child of the run.

Mirror: tests/worker/test_spanned.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.broker.wire.link import ChunkDone, Done, Failed, RunCall, RunChunk

from .context import Context
from .dispatch import Entry
from .execution import Execution, Word
from .streaming import AsyncSteps, PartWriter, Send, Steps

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from pronghorn.client.otel import Spans


class SpannedExecution(Execution):
    """Runs requests for one worker.

    Args:
        worker_id: Its number.
        result_bytes: Largest result.
        spans: Makes spans.
    """

    __slots__ = ("_spans", "_worker")

    def __init__(self, worker_id: int, result_bytes: int, spans: "Spans") -> None:
        super().__init__(worker_id, result_bytes)
        self._spans = spans
        self._worker = worker_id
        self.parents = {}

    def call(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run a `def` node."""
        with self._run(entry, message, context) as span:
            return self._noted(span, super().call(entry, message, buffers, context))

    async def call_async(
        self, entry: Entry, message: RunCall, buffers: Sequence[bytes], context: Context | None
    ) -> Word:
        """Run an `async def` node."""
        with self._run(entry, message, context) as span:
            return self._noted(span, await super().call_async(entry, message, buffers, context))

    def chunk(self, entry: Entry, message: RunChunk, context: Context | None) -> Word:
        """Run a `def` node once per item, all within one span."""
        with self._run(entry, message, context) as span:
            return self._noted(span, super().chunk(entry, message, context))

    async def chunk_async(self, entry: Entry, message: RunChunk, context: Context | None) -> Word:
        """Run an `async def` node for all items, within one span."""
        with self._run(entry, message, context) as span:
            return self._noted(span, await super().chunk_async(entry, message, context))

    def steps(
        self,
        entry: Entry,
        message: RunCall,
        buffers: Sequence[bytes],
        context: Context | None,
        send: Send,
    ) -> tuple[Steps | AsyncSteps, PartWriter]:
        """Make the generator of a streaming node ready; its last word ends the span."""
        span = self._begin(entry, message, context)
        try:
            steps, writer = super().steps(entry, message, buffers, context, send)
        except PronghornError as error:
            self._spans.fail(span, error.code, error.message)
            span.end()
            raise

        def on_end(word: Done | Failed) -> None:
            self._note(span, word)
            span.end()

        writer.on_end = on_end
        return steps, writer

    def _begin(self, entry: Entry, message: RunCall | RunChunk, context: Context | None) -> "Span":
        assert self.parents is not None
        parent = self.parents.pop(message.token, None)
        span = self._spans.begin_run(
            entry.name, parent, request=str(message.token), worker_id=self._worker
        )
        if context is not None:
            context.traceparent = self._spans.traceparent_of(span) or context.traceparent
        return span

    @contextmanager
    def _run(
        self, entry: Entry, message: RunCall | RunChunk, context: Context | None
    ) -> Iterator["Span"]:
        span = self._begin(entry, message, context)
        try:
            with self._spans.current(span):
                yield span
        finally:
            span.end()

    def _noted(self, span: "Span", word: Word) -> Word:
        self._note(span, word[0])
        return word

    def _note(self, span: "Span", word: Done | ChunkDone | Failed) -> None:
        if isinstance(word, Failed):
            self._spans.fail(span, word.code, word.message)
        elif isinstance(word, ChunkDone) and word.failures:
            first = word.failures[0]
            self._spans.fail(span, first.code, f"{len(word.failures)} items: {first.message}")
