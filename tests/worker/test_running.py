"""Mirror of worker/running.py: real workers, by what they log."""

import json
from pathlib import Path

import pytest

from pronghorn.client import NodeError, Pool
from pronghorn.worker.running import running_call

NODES = """
import asyncio, logging, threading
from collections.abc import AsyncIterator, Iterator
from pronghorn.worker import Context, node
log = logging.getLogger("shop")
@node
def plain(n: int) -> None: log.warning("here")
@node(thread=True)
def threaded() -> None: log.warning("here")
@node
async def coroutine() -> None:
    await asyncio.sleep(0)
    log.warning("here")
async def log_soon():
    await asyncio.sleep(0)
    log.warning("here")
@node
async def subtasks() -> None:
    await asyncio.gather(log_soon(), asyncio.to_thread(log.warning, "here"))
@node
def parts() -> Iterator[int]:
    yield 1
    log.warning("here")
@node
async def parts_async() -> AsyncIterator[int]:
    yield 1
    await asyncio.create_task(log_soon())
@node
def outer(ctx: Context) -> None: ctx.call_sync(plain, 1)
@node
def traced(ctx: Context) -> tuple[str, str | None]:
    log.warning("here")
    return ctx.request_id, ctx.traceparent
@node
def own_thread(ctx: Context) -> None:
    thread = threading.Thread(target=ctx.log.warning, args=("here",))
    thread.start()
    thread.join()
class Odd(Exception):
    def __str__(self) -> str:
        log.warning("here")
        return "odd"
@node
def raises() -> int: raise Odd
"""


def test_outside_of_a_call_there_is_none() -> None:
    assert running_call() is None


@pytest.mark.slow
def test_each_kind_of_node_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.py"
    path.write_text(NODES)
    capfd.readouterr()
    with Pool(path, workers=1, log_format="json") as pool, pool.client() as client:

        def told() -> list[tuple[str | None, str | None, int]]:
            """Node, message and worker of each line since this was called last."""
            lines = map(json.loads, capfd.readouterr().err.splitlines())
            return [(line.get("node"), line["message"], line["worker"]) for line in lines]

        for name in ("threaded", "coroutine", "parts", "parts_async", "own_thread"):
            client.call(name)
            assert told() == [(f"shop.{name}", "here", 1)]
        client.call("plain", 1)
        list(client.map("plain", [(1,), (2,)], chunk_size=2))
        assert told() == [("shop.plain", "here", 1)] * 3
        client.call("subtasks")
        assert told() == [("shop.subtasks", "here", 1)] * 2
        for name in ("parts", "parts_async"):
            list(client.stream(name))
            assert told() == [(f"shop.{name}", "here", 1)]
        client.call("outer")
        assert told() == [("shop.plain", "here", 1)], "the innermost"
        with pytest.raises(NodeError):
            client.call("raises")
        assert {node for node, _, _ in told()} == {"shop.raises"}


@pytest.mark.slow
def test_the_trace_and_the_request_are_those_of_the_context(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "shop.py"
    path.write_text(NODES)
    capfd.readouterr()
    trace = "0af7651916cd43dd8448eb211c80319c"
    with Pool(path, workers=1, log_format="json") as pool, pool.client() as client:
        within = client.within(traceparent=f"00-{trace}-b7ad6b7169203331-01")
        request_id, traceparent = within.call("traced")
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert trace in traceparent
    assert (line["request"], line["traceparent"]) == (request_id, traceparent)
