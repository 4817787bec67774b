"""Mirror of worker/spanned.py: real workers, whose nodes tell which spans were exported."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pronghorn.client import Client, NodeError, Pool

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
NODES = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pronghorn.worker import Context, node, on_start
exporter = InMemorySpanExporter()
@on_start
def configure() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
def here() -> str:
    return f"{trace.get_current_span().get_span_context().span_id:016x}"
@node
def exported() -> list[dict]:
    spans = [
        {
            "name": span.name,
            "kind": span.kind.name,
            "status": span.status.status_code.name,
            "trace": f"{span.context.trace_id:032x}",
            "id": f"{span.context.span_id:016x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent else None,
            "attributes": dict(span.attributes),
        }
        for span in exporter.get_finished_spans()
    ]
    exporter.clear()
    return spans
@node
def plain(n: int = 0) -> str: return here()
@node(thread=True)
def threaded() -> str: return here()
@node
async def coroutine() -> str:
    await asyncio.sleep(0)
    return await asyncio.create_task(soon())
async def soon() -> str: return here()
@node
def context(ctx: Context) -> str: return ctx.traceparent.split("-")[2]
@node
def fails(n: int) -> int: return 1 // n
@node
def parts(ctx: Context, n: int) -> Iterator[str]:
    yield ctx.traceparent.split("-")[2]
    yield str(1 // n)
@node
async def parts_async(ctx: Context) -> AsyncIterator[str]: yield ctx.traceparent.split("-")[2]
@node
def outer(ctx: Context) -> str: return ctx.call_sync(threaded)
@node
async def outer_async(ctx: Context) -> str: return await ctx.call(plain)
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    path: Path = tmp_path_factory.mktemp("spanned") / "shop.py"
    path.write_text(NODES)
    with Pool(path, workers=1) as pool:
        client = pool.client()
        # The connections that it makes when they are first needed are no test's.
        client.call("plain")
        list(client.map("plain", [(1,)]))
        list(client.stream("parts", 1))
        yield client


@pytest.fixture(autouse=True)
def _forgets(client: Client) -> None:
    client.call("exported")


def spans(client: Client) -> list[dict[str, Any]]:
    return [span for span in client.call("exported") if span["name"] != "shop.exported"]


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["plain", "threaded", "coroutine", "context"])
def test_a_run_is_the_current_span_and_a_child_of_its_call(client: Client, name: str) -> None:
    id_ = client.within(traceparent=PARENT).call(name)
    (span,) = spans(client)
    assert (span["name"], span["kind"], span["status"]) == (f"shop.{name}", "SERVER", "UNSET")
    assert (span["id"], span["trace"], span["parent"]) == (id_, TRACE, "b7ad6b7169203331")
    assert span["attributes"]["pronghorn.worker"] == 1
    client.call(name)
    (span,) = spans(client)
    assert span["parent"] is None


def test_an_error_is_its_status(client: Client) -> None:
    with pytest.raises(NodeError):
        client.call("fails", 0)
    list(client.map("fails", [(1,), (0,), (2,)], return_exceptions=True, chunk_size=3))
    failed, chunk = spans(client)
    assert failed["status"] == chunk["status"] == "ERROR"
    assert failed["attributes"]["error.type"] == chunk["attributes"]["error.type"] == NodeError.code
    list(client.map("plain", [(1,), (2,)], chunk_size=2))
    (chunk,) = spans(client)
    assert chunk["status"] == "UNSET"


def test_a_generator_s_span_ends_with_it(client: Client) -> None:
    within = client.within(traceparent=PARENT)
    for take in (lambda: list(within.stream("parts", 1)), lambda: within.call("parts", 1)):
        told = take()
        (span,) = spans(client)
        assert (span["id"], span["parent"], span["status"]) == (told[0], PARENT[36:52], "UNSET")
    (told,) = within.stream("parts_async")
    (span,) = spans(client)
    assert (span["id"], span["parent"]) == (told, PARENT[36:52])
    with pytest.raises(NodeError):
        list(within.stream("parts", 0))
    (span,) = spans(client)
    assert span["status"] == "ERROR"


@pytest.mark.parametrize(("name", "inner"), [("outer", "threaded"), ("outer_async", "plain")])
def test_what_a_node_calls_is_a_child_of_its_run(client: Client, name: str, inner: str) -> None:
    id_ = client.within(traceparent=PARENT).call(name)
    child, run = spans(client)
    assert (run["name"], child["name"]) == (f"shop.{name}", f"shop.{inner}")
    assert (child["id"], child["parent"], child["trace"]) == (id_, run["id"], TRACE)
