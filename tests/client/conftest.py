"""Pools that all tests of the clients share, in processes and in this one, and their clients."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

import client_nodes
import pytest
import pytest_asyncio
import uvloop
import zmq
from scripted_broker import TRANSPORTS, ScriptedBroker, Transport, scripted_broker
from trees import Fifo

from pronghorn.client import AsyncClient, Client, LocalPool, Pool

AnyPool = Pool | LocalPool


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _buffers_are_kept() -> None:
    """Have pyzmq start its keeper of buffers that are sent without a copy: that is no leak."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("inproc://buffers")
        two.connect("inproc://buffers")
        one.send(b"x" * 1_000_000, copy=False)
        two.recv()


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two workers in processes of their own."""
    with Pool(client_nodes.FILE, workers=2) as pool:
        yield pool


@pytest.fixture(scope="session", params=["processes", "local"])
def any_pool(request: pytest.FixtureRequest) -> Iterator[AnyPool]:
    """A pool of each kind."""
    if request.param == "processes":
        yield request.getfixturevalue("pool")
        return
    with LocalPool(client_nodes.FILE, workers=2) as pool:
        # What it starts when it is first needed is its own, not a test's.
        with pool.client() as client:
            client.call("add_async", 1, 2)
            futures.wait([client.submit("nap", 0.01) for _ in range(2)])
        yield pool


@pytest.fixture
def client(any_pool: AnyPool) -> Iterator[Client]:
    with any_pool.client() as client:
        yield client


@pytest_asyncio.fixture
async def async_client(any_pool: AnyPool) -> AsyncIterator[AsyncClient]:
    async with any_pool.async_client() as client:
        yield client


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    transport: Transport = request.param
    return transport


@pytest.fixture
def broker(tmp_path: Path, transport: Transport) -> Iterator[ScriptedBroker]:
    """A scripted broker, started, over each transport."""
    with scripted_broker(tmp_path, transport) as broker:
        yield broker
