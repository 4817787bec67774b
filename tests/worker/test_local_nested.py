"""Mirror of worker/local_nested.py: where a call of a node runs, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pronghorn.client import NodeError, PronghornError
from pronghorn.worker.local import LocalPool
from pronghorn.worker.nested import DEPTH_MAX

NODES = """
import asyncio
import threading

from pronghorn.worker import Context, node

@node
def where() -> str:
    return threading.current_thread().name

@node
async def where_async() -> str:
    return f"{threading.current_thread().name} {id(asyncio.get_running_loop())}"

@node
def ask(ctx: Context, name: str) -> list:
    return [threading.current_thread().name, ctx.call_sync(name)]

@node
async def ask_async(ctx: Context, name: str) -> list:
    return [await where_async(), await ctx.call(name)]

@node
async def ask_wrongly(ctx: Context, name: str) -> str:
    return ctx.call_sync(name)

@node
def again(ctx: Context, depth: int) -> int:
    return ctx.call_sync("again", depth + 1)

@node
def told(ctx: Context) -> str | None:
    return ctx.traceparent

@node
def tell(ctx: Context) -> str | None:
    return ctx.call_sync("told")
"""
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def nodes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nested") / "local_nested_nodes.py"
    path.write_text(NODES)
    return path


@pytest.fixture
def pool(nodes_file: Path) -> Iterator[LocalPool]:
    with LocalPool(nodes_file) as pool:
        yield pool


def call(pool: LocalPool, *arguments: Any) -> Any:
    return pool.client().call(*arguments)


def test_a_def_runs_a_def_in_its_own_thread(pool: LocalPool) -> None:
    here, there = call(pool, "ask", "where")
    assert here == there


def test_a_def_runs_an_async_def_in_its_own_thread_on_a_loop_of_its_own(pool: LocalPool) -> None:
    _, loop_of_the_pool = call(pool, "where_async").split()
    here, there = call(pool, "ask", "where_async")
    thread, loop = there.split()
    assert thread == here
    assert loop != loop_of_the_pool


def test_an_async_def_runs_another_one_on_its_own_loop(pool: LocalPool) -> None:
    here, there = call(pool, "ask_async", "where_async")
    assert here == there


def test_a_loop_is_not_held_up(pool: LocalPool) -> None:
    with pytest.raises(NodeError, match="this would hold up the event loop"):
        call(pool, "ask_wrongly", "where")


def test_the_depth_is_limited(pool: LocalPool) -> None:
    with pytest.raises(PronghornError, match=f"calls within calls are {DEPTH_MAX} deep"):
        call(pool, "again", 0)


def test_a_call_is_part_of_its_caller_s_trace(pool: LocalPool) -> None:
    client = pool.client()
    assert client.call("tell") is None
    told = client.within(traceparent=TRACEPARENT).call("tell")
    assert told.split("-")[1] == TRACEPARENT.split("-")[1]
