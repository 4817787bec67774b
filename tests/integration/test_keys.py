"""Clients with keys against a whole tree over tcp: all ways to call, and the end of a key."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from key_folders import Keys, dealer
from pools import NODES
from raw_sockets import RawSockets

from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.keys import PrivateKey
from pronghorn.broker.wire.messages import NIL, Call, Error
from pronghorn.client import (
    AsyncClient,
    BrokerLostError,
    Client,
    PermissionDeniedError,
)
from pronghorn.client.launch import ProcessTree

pytestmark = pytest.mark.slow

WITHIN_S = 1.0  # of its revocation a key is of no use


class Tree:
    """A tree that wants keys."""

    def __init__(self, folder: Path) -> None:
        self.keys = Keys(folder / "keys")
        self._tree = ProcessTree(
            [NODES],
            workers=2,
            folder=folder / "run",
            endpoints=["tcp://127.0.0.1:0"],
            keys=self.keys.folder.path,
        )
        self.local, self.endpoint = self._tree.ready.endpoints

    def close(self) -> None:
        self._tree.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    tree = Tree(tmp_path_factory.mktemp("tree"))
    yield tree
    tree.close()


def test_every_way_to_call_works_with_a_key(tree: Tree) -> None:
    with Client(tree.endpoint, key=tree.keys.file("all-ways")) as client:
        assert client.call("add", 1, 2) == 3
        assert client.submit("add", 1, 2).result(10) == 3
        assert list(client.map("add", [(1, 2), (3, 4)])) == [3, 7]
        assert list(client.stream("count", 3)) == [0, 1, 2]
        large = bytes(2**18)
        assert client.call("echo", large) == large
        assert client.ping() > 0


async def test_an_async_client_calls_with_a_key(tree: Tree) -> None:
    key = tree.keys.add("asynchronous")
    async with AsyncClient(tree.endpoint, key=key) as client:
        results = await asyncio.gather(*(client.call("add", n, 1) for n in range(100)))
        assert results == list(range(1, 101))
        assert [part async for part in client.stream("count", 3)] == [0, 1, 2]


async def test_without_a_key_or_with_another_nobody_is_let_in(tree: Tree) -> None:
    other = Keys(tree.keys.folder.path.parent / "other").add("stranger")
    stranger = PrivateKey(other.public, other.secret, tree.keys.server.public)
    for key, told in ((None, "it wants a key"), (stranger, "does not accept this client's key")):
        begun = monotonic()
        client = AsyncClient(tree.endpoint, key=key)
        with pytest.raises(PermissionDeniedError, match=told):
            await client.call("add", 1, 2)
        await client.aclose()
        with pytest.raises(PermissionDeniedError, match=told), Client(tree.endpoint, key=key):
            pass
        assert monotonic() - begun < 4, "nobody waits until the time to connect is over"


def test_a_key_is_for_its_nodes_and_orders_need_a_right(tree: Tree) -> None:
    with Client(tree.endpoint, key=tree.keys.add("adder", nodes=("*.add",))) as client:
        assert client.call("add", 1, 2) == 3
        for act in (
            lambda: client.call("count", 3),
            lambda: list(client.map("echo", [(b"x",)])),
            lambda: client.admin.scale(1),
            client.stats,
        ):
            with pytest.raises(PermissionDeniedError, match="no right to call") as caught:
                act()
            assert caught.value.outcome == "not_started"
    with Client(tree.endpoint, key=tree.keys.add("operator", administers=True)) as client:
        assert len(client.admin.workers()) == 2
        assert client.stats().refused["permission_denied"] >= 4


def test_a_revoked_key_ends_open_calls_at_once_and_lets_nobody_in_again(tree: Tree) -> None:
    key = tree.keys.add("fired")
    ends: list[tuple[BaseException | None, float]] = []
    with Client(tree.endpoint, key=key) as client, Client(tree.local) as beside:
        client.call("add", 1, 2)
        begun = threading.Event()

        def call() -> None:
            begun.set()
            try:
                client.call("wait_for_ever")
                ends.append((None, monotonic()))
            except BrokerLostError as error:
                ends.append((error, monotonic()))

        thread = threading.Thread(target=call)
        thread.start()
        begun.wait()
        waiting: Future[Any] = client.submit("wait_for_ever")
        while sum(one.held for one in beside.stats().workers) < 2:
            pass
        revoked_at = monotonic()
        tree.keys.folder.remove("fired")
        thread.join(10)
        [(error, at)] = ends
        assert isinstance(error, BrokerLostError)
        assert at - revoked_at < WITHIN_S
        assert isinstance(waiting.exception(WITHIN_S), BrokerLostError)
        while any(one.held for one in beside.stats().workers):  # cancelled, and its worker replaced
            pass
        with pytest.raises(PermissionDeniedError, match="may have been revoked"):
            client.call("add", 1, 2)
        assert beside.call("add", 1, 2) == 3


def test_a_chosen_routing_id_is_told_that_it_must_not_be(tree: Tree) -> None:
    sockets = RawSockets()
    client = dealer(sockets, tree.endpoint, tree.keys.add("chooser"), ROUTING_ID=b"chosen")
    client.send(encode_message(Call(7, "add", NIL)))
    reply = decode_reply(client.recv())
    assert isinstance(reply, Error)
    assert (reply.id, reply.code) == (7, "PERMISSION_DENIED")
    assert "routing id" in reply.message
    sockets.close()
