"""Spans of OpenTelemetry. Imported only where the program has configured that itself.

Mirror: tests/client/test_otel.py.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from functools import lru_cache, partial
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.broker.wire.messages import Error
from pronghorn.broker.wire.traceparent import well_formed
from pronghorn.broker.wire.version import VERSION

from .stopwatch import Extras
from .streaming import Arrival, Arrivals, AsyncArrivals, AsyncOpen, Open

_SYSTEM: Final = "pronghorn"


class Spans:
    """Makes our spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, node: str, extras: Extras | None) -> tuple[Span, Extras | None]:
        """Start the span of a client's call, a child of what `within` says or of the current one.

        Returns:
            It, to be ended, and the extras by which the node's run becomes its child.
        """
        parent = None if extras is None else _place_of(extras.traceparent)
        attributes = {"rpc.system": _SYSTEM, "rpc.method": node}
        span = self._tracer.start_span(node, parent, SpanKind.CLIENT, attributes)
        traceparent = self.traceparent_of(span)
        if traceparent is None:
            return span, extras
        return span, (extras or Extras())._replace(traceparent=traceparent)

    def begin_run(
        self, node: str, traceparent: str | None, *, request: str, worker_id: int
    ) -> Span:
        """Start the span of a run in a worker, a child of the call's or else of the current one."""
        attributes: dict[str, str | int] = {
            "rpc.system": _SYSTEM,
            "rpc.method": node,
            "pronghorn.request": request,
            "pronghorn.worker": worker_id,
        }
        return self._tracer.start_span(node, _place_of(traceparent), SpanKind.SERVER, attributes)

    @contextmanager
    def call(self, node: str, extras: Extras | None) -> Iterator[Extras | None]:
        """Make a block the span of a call, and the current one; gives the extras of that."""
        span, within = self.begin(node, extras)
        with self.current(span), _ending(span):
            yield within

    def iterate(
        self,
        node: str,
        extras: Extras | None,
        make: Callable[[Extras | None], Iterator[Any]],
    ) -> Generator[Any, None, None]:
        """Make the life of an iterator a span, which is not the current one of who iterates."""
        span, within = self.begin(node, extras)
        with _ending(span):
            yield from make(within)

    async def iterate_async(
        self,
        node: str,
        extras: Extras | None,
        make: Callable[[Extras | None], AsyncGenerator[Any, None]],
    ) -> AsyncGenerator[Any, None]:
        """Make the life of an async iterator a span."""
        span, within = self.begin(node, extras)
        with _ending(span):
            async with aclosing(make(within)) as results:
                async for result in results:
                    yield result

    def submit(
        self,
        node: str,
        extras: Extras | None,
        make: Callable[[Extras | None], "Future[Any]"],
    ) -> "Future[Any]":
        """Make the life of a future a span."""
        span, within = self.begin(node, extras)
        with _failing(span):
            future = make(within)
        future.add_done_callback(partial(_end_with, span))
        return future

    @staticmethod
    def watched(span: Span, open_: Open) -> Open:
        """Have a span end with the stream that is opened."""

        def opened(again: bool) -> Arrivals:
            with _failing(span):
                return _Watched(open_(again), span)

        return opened

    @staticmethod
    def watched_async(span: Span, open_: AsyncOpen) -> AsyncOpen:
        """Have a span end with the stream that is opened."""

        async def opened(again: bool) -> AsyncArrivals:
            with _failing(span):
                return _Watched(await open_(again), span)

        return opened

    @staticmethod
    @contextmanager
    def current(span: Span) -> Iterator[None]:
        """Make a span the current one for a block; it is not ended."""
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield

    @staticmethod
    def fail(span: Span, code: str, message: str) -> None:
        """Note an error."""
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, message))

    @staticmethod
    def traceparent_of(span: Span) -> str | None:
        """Write the place of a span in its trace; `None` if it has none."""
        place = span.get_span_context()
        if not place.is_valid:
            return None
        return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


class _Watched:
    """Arrivals whose end is that of a span."""

    def __init__(self, arrivals: Arrivals | AsyncArrivals, span: Span) -> None:
        self._arrivals = arrivals
        self._span = span

    def take(self) -> Arrival | None:
        arrival = self._arrivals.take()
        if arrival is not None and isinstance(arrival[0], Error):
            Spans.fail(self._span, arrival[0].code, arrival[0].message)
        return arrival

    def wait(self) -> Any:
        return self._arrivals.wait()

    def close(self) -> None:
        self._arrivals.close()
        if self._span.is_recording():
            self._span.end()


def configured_spans() -> Spans | None:
    """Give what makes spans, if a provider is configured."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider) else _spans_of(provider)


@lru_cache(maxsize=1)
def _spans_of(provider: TracerProvider) -> Spans:
    return Spans(provider.get_tracer("pronghorn", VERSION))


def _place_of(traceparent: str | None) -> Context | None:
    """Read the place of a parent elsewhere; `None` if there is none, or it is malformed."""
    traceparent = well_formed(traceparent)
    if traceparent is None:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    place = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(place))


def _end_with(span: Span, future: "Future[Any]") -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _fail_by(span, error)
    span.end()


def _fail_by(span: Span, error: BaseException) -> None:
    kind = error.code if isinstance(error, PronghornError) else type(error).__name__
    Spans.fail(span, kind, str(error))


@contextmanager
def _failing(span: Span) -> Iterator[None]:
    """End a span if a block raises, which is its error; to be left early is none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, GeneratorExit):
            _fail_by(span, error)
        span.end()
        raise


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    """End a span with a block."""
    with _failing(span):
        yield
    span.end()
