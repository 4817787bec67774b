"""The standard library's interface, over served functions only."""

import asyncio
from concurrent import futures
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import client_nodes
import pytest
from client_nodes import Point
from trees import PATIENCE_S, Fifo

from pronghorn.client import (
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    LocalPool,
    NodeError,
    NotFoundError,
    Pool,
)


def test_submit(client: Client) -> None:
    executor = client.executor()
    assert isinstance(executor, Executor)
    assert executor.submit(client_nodes.add, 1, 2).result(PATIENCE_S) == 3
    assert executor.submit(client_nodes.add, 1, b=2).result(PATIENCE_S) == 3
    assert executor.submit(client_nodes.add_async, a=1, b=2).result(PATIENCE_S) == 3
    assert executor.submit(client_nodes.move, Point(1)).result(PATIENCE_S) == Point(2, 1)
    by_name: Any = executor.submit
    assert by_name("add", 1, 2).result(PATIENCE_S) == 3
    assert by_name("add", a=1, b=2).result(PATIENCE_S) == 3


def test_all_arguments_are_the_function_s(client: Client) -> None:
    executor = client.executor()
    future = executor.submit(client_nodes.named_like_options, timeout_s=1.5, params=2)
    assert future.result(PATIENCE_S) == 3.0
    by_name: Any = executor.submit
    future = by_name("named_like_options", timeout_s=1.5, params=2)
    assert future.result(PATIENCE_S) == 3.0


@pytest.mark.parametrize("function", [lambda: 1, len, print, Point, "no such node"])
def test_what_is_not_served_is_refused(client: Client, function: Any) -> None:
    executor = client.executor()
    if isinstance(function, str):
        assert isinstance(executor.submit(function).exception(PATIENCE_S), NotFoundError)
        return
    with pytest.raises(InvalidArgumentError, match="is not a node"):
        executor.submit(function)
    with pytest.raises(InvalidArgumentError, match="is not a node"):
        executor.map(function, [1])


def test_arguments_are_checked_at_submit(client: Client) -> None:
    executor = client.executor()
    wrong: Any = executor.submit
    for arguments, named in ((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1, 2), {"timeout_s": 1}):
        with pytest.raises(TypeError):
            wrong(client_nodes.add, *arguments, **named)
    with pytest.raises(InvalidArgumentError, match="can't encode"):
        wrong(client_nodes.add, object(), 2)
    in_context: Any = client_nodes.in_context
    assert executor.submit(in_context, 3).result(PATIENCE_S) == 6


def test_map(client: Client) -> None:
    executor = client.executor()
    assert list(executor.map(client_nodes.add, range(100), range(100))) == list(range(0, 200, 2))
    assert list(executor.map(client_nodes.add, [1, 2], [3], chunksize=5)) == [4]
    assert list(executor.map(client_nodes.add, [], [])) == []
    by_name: Any = executor.map
    assert list(by_name("add", [1], [2], timeout=10.0, buffersize=4)) == [3]
    results = executor.map(client_nodes.divide, [1, 1, 1], [1, 0, 2])
    assert next(results) == 1.0
    with pytest.raises(NodeError, match="division by zero"):
        next(results)
    with pytest.raises(DeadlineExceededError):
        list(executor.map(client_nodes.doze, [60.0], timeout=0.05))


def test_shutdown_waits(client: Client) -> None:
    with client.executor() as executor:
        submitted = [executor.submit(client_nodes.doze, 0.03) for _ in range(3)]
    assert all(future.done() for future in submitted)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(client_nodes.add, 1, 2)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(client_nodes.add, [1], [2])
    assert client.call("add", 1, 2) == 3, "the client stays open"


def test_shutdown_without_waiting(client: Client) -> None:
    executor = client.executor()
    future = executor.submit(client_nodes.doze, 0.03)
    executor.shutdown(wait=False)
    assert not future.done()
    assert future.result(PATIENCE_S) == 0.03


def test_shutdown_that_cancels(
    any_pool: Pool | LocalPool, client: Client, fifo: Fifo, tmp_path: Path
) -> None:
    gates = [Fifo(tmp_path / f"gate{number}") for number in range(any_pool.workers)]
    blocked = [client.submit("hold", gate.path) for gate in gates]
    executor = client.executor()
    waiting = [executor.submit(client_nodes.note, fifo.path, "not to run") for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    for gate in gates:
        Path(gate.path).write_text("go on\n")
    assert futures.wait(blocked, PATIENCE_S).not_done == set()
    for gate in gates:
        gate.close()
    assert client.call("note", fifo.path, "next") == "next"
    assert fifo.line() == "next"


def test_in_asyncio(client: Client) -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(client.executor(), client_nodes.add, 1, 2)

    assert asyncio.run(run()) == 3
