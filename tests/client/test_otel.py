"""Mirror of client/otel.py; runs in workers are in worker/test_spanned.py."""

from collections.abc import Iterator
from typing import Any

import pytest
from client_nodes import add
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pronghorn.client import AsyncClient, Client, InvalidArgumentError, NodeError, Pool

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Configure a provider for one test; the API lets a program do that once only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    exporter.clear()
    return span


def traceparent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"


def test_a_call_is_a_span_and_the_node_s_parent(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    assert client.call(add, 1, 2) == 3
    span = only(exporter)
    assert span.name.endswith("add")
    assert span.kind is SpanKind.CLIENT
    assert span.attributes == {"rpc.system": "pronghorn", "rpc.method": span.name}
    assert span.status.status_code is StatusCode.UNSET
    told = client.call("traceparent")
    span = only(exporter)
    assert told.split("-")[1] == traceparent_of(span).split("-")[1]
    assert client.trace("add", 1, 2).result == 3
    assert only(exporter).name == "add"


def test_its_parent_is_the_current_span_or_what_within_says(
    client: Client, exporter: InMemorySpanExporter
) -> None:
    with trace.get_tracer_provider().get_tracer("test").start_as_current_span("outer") as outer:
        client.call("add", 1, 2)
        span = only(exporter)
        assert span.parent is not None
        assert span.parent.span_id == outer.get_span_context().span_id
        client.within(traceparent=PARENT).call("add", 1, 2)
        span = only(exporter)
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    client.within(traceparent="rubbish").call("add", 1, 2)
    exporter.clear()


def test_an_error_is_its_status(client: Client, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(NodeError):
        client.call("divide", 1, 0)
    span = only(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert "ZeroDivisionError" in str(span.status.description)
    assert span.attributes is not None
    assert span.attributes["error.type"] == NodeError.code


def test_submitted_calls_maps_and_streams(client: Client, exporter: InMemorySpanExporter) -> None:
    assert client.submit("add", 1, 2).result(20) == 3
    with pytest.raises(NodeError):
        client.submit("divide", 1, 0).result(20)
    with pytest.raises(InvalidArgumentError):
        list(client.map("divide", [(1,)]))
    assert list(client.map("add", [(1, 2), (3, 4)])) == [3, 7]
    assert len(list(client.stream("points", 3))) == 3
    with pytest.raises(NodeError):
        list(client.stream("points", 1, "raise"))
    stream = client.stream("points", 1000)
    next(stream)
    stream.close()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        *("add", "divide", "divide", "add", "points", "points", "points")
    ]
    failed = [span.status.status_code is StatusCode.ERROR for span in spans]
    assert failed == [False, True, True, False, False, True, False]
    told = client.submit("traceparent").result(20)
    assert told.split("-")[1] == traceparent_of(exporter.get_finished_spans()[-1]).split("-")[1]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_the_same_of_the_async_client(pool: Pool, exporter: InMemorySpanExporter) -> None:
    async def taken(iterator: Any) -> list[Any]:
        return [one async for one in iterator]

    async with AsyncClient(pool.endpoint) as client:
        assert await client.call("add", 1, 2) == 3
        with pytest.raises(NodeError):
            await client.call("divide", 1, 0)
        assert await taken(client.map("add", [(1, 2), (3, 4)])) == [3, 7]
        assert len(await taken(client.stream("points", 3))) == 3
        with pytest.raises(NodeError):
            await taken(client.stream("points", 1, "raise"))
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["add", "divide", "add", "points", "points"]
    failed = [span.status.status_code is StatusCode.ERROR for span in spans]
    assert failed == [False, True, False, False, True]


def test_with_events_too(client: Client, exporter: InMemorySpanExporter) -> None:
    told: list[Any] = []
    assert client.call("tells", 2, on_event=told.append) == 2
    assert told
    assert only(exporter).name == "tells"
