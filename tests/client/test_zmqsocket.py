"""The ZeroMQ socket of a connection, against a bare ROUTER."""

import asyncio
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from raw_sockets import RawSockets
from trees import PATIENCE_S

from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError, OverloadedError
from pronghorn.broker.wire.limits import KIB
from pronghorn.client.sockets import Attached
from pronghorn.client.zmqsocket import ZmqSocket, make_context


@pytest.fixture
def context() -> Iterator[Any]:
    context = make_context()
    yield context
    context.term()  # which hangs if a socket is left open


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


def wait_for(descriptor: int) -> None:
    assert select.select([descriptor], [], [], PATIENCE_S)[0]


def connected(context: Any, sockets: RawSockets, folder: Path) -> tuple[ZmqSocket, Any, bytes]:
    """Make a connection; return both ends and the routing id of ours."""
    endpoint = f"ipc://{folder}/router.sock"
    router = sockets.bind(zmq.ROUTER, endpoint)
    ours = ZmqSocket(context, endpoint, None)
    while not ours._get(zmq.EVENTS) & zmq.POLLOUT:
        wait_for(ours.fd)
    peer, probe = router.recv_multipart()
    assert probe == b"", "a new connection makes itself known"
    return ours, router, peer


def test_frames_there_and_back(context: Any, sockets: RawSockets, tmp_path: Path) -> None:
    ours, router, peer = connected(context, sockets, tmp_path)
    messages = [
        [b"small"],
        [b"several", bytearray(b"frames"), memoryview(b"of all kinds")],
        [b"x" * (600 * KIB)],
        [b"header", bytearray(b"y" * (600 * KIB)), b"z" * (70 * KIB)],
    ]
    for message in messages:
        ours.send(message)
        assert router.recv_multipart() == [peer, *message]
    assert ours.receive() is None
    assert not ours.readable()
    router.send_multipart([peer, b"one", b"two"])
    assert ours.receive_soon() == b"one"
    assert ours.readable()
    assert ours.receive() == b"two"
    assert ours.receive_soon() is None
    ours.close()


def test_a_lost_connection_is_told_once(context: Any, sockets: RawSockets, tmp_path: Path) -> None:
    ours, router, _ = connected(context, sockets, tmp_path)
    assert not ours.disconnected()
    router.close(linger=0)
    wait_for(ours.monitor_fd)
    assert ours.disconnected()
    assert not ours.disconnected()
    ours.close()


def test_nothing_is_queued_for_a_broker_that_is_not_there(context: Any, tmp_path: Path) -> None:
    ours = ZmqSocket(context, f"ipc://{tmp_path}/none.sock", None)
    for frames in [b"one"], [b"one", b"two"], [b"x" * (600 * KIB)]:
        with pytest.raises(BrokerLostError, match="no connection") as caught:
            ours.send(frames)
        assert caught.value.outcome == "not_started"
    ours.close()


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:port"])
def test_what_libzmq_can_not_connect_to_is_refused(context: Any, endpoint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ZmqSocket(context, endpoint, None)
    assert endpoint in caught.value.message


def test_what_else_strikes_while_it_is_made_leaves_nothing_open(context: Any) -> None:
    with pytest.raises(UnicodeEncodeError):  # as an interrupt would
        ZmqSocket(context, "tcp://\udcff:80", None)


def test_over_tcp_the_other_side_is_asked_for_signs_of_life(
    context: Any, sockets: RawSockets
) -> None:
    router = sockets.bind(zmq.ROUTER, "tcp://127.0.0.1:*")
    ours = ZmqSocket(context, router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode(), None)
    assert ours._get(zmq.HEARTBEAT_IVL) > 0
    ours.close()


@pytest.mark.parametrize("room", [1, 2])
def test_a_context_without_room_is_told(room: int, tmp_path: Path) -> None:
    context: Any = zmq.Context()
    context.set(zmq.MAX_SOCKETS, room)
    with pytest.raises(OverloadedError, match="can't make a socket"):
        ZmqSocket(context, f"ipc://{tmp_path}/none.sock", None)
    context.term()


def test_a_loop_calls_back_as_long_as_it_is_attached(
    context: Any, sockets: RawSockets, tmp_path: Path
) -> None:
    ours, router, peer = connected(context, sockets, tmp_path)
    loop = asyncio.new_event_loop()
    told: list[str] = []

    def on_readable() -> None:
        while ours.receive() is not None:
            told.append("readable")
        loop.stop()

    def on_lost() -> None:
        if ours.disconnected():  # the descriptor becomes readable for less than that too
            told.append("lost")
        loop.stop()

    ours.attach(Attached(loop, on_readable, on_lost))
    router.send_multipart([peer, b"one"])
    while "readable" not in told:
        loop.run_forever()
    router.close(linger=0)
    while "lost" not in told:
        loop.run_forever()
    assert told == ["readable", "lost"]
    ours.detach()
    assert not loop._selector.get_map().keys() & {ours.fd, ours.monitor_fd}  # type: ignore[attr-defined]
    ours.attach(Attached(loop, on_readable, on_lost))
    loop.close()
    ours.detach()
    ours.close()


def test_many_connections_come_and_go(context: Any, sockets: RawSockets, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/router.sock"
    sockets.bind(zmq.ROUTER, endpoint)
    for _ in range(100):  # descriptors are used again before libzmq has let go of all
        ours = [ZmqSocket(context, endpoint, None) for _ in range(3)]
        for one in ours:
            one.close()
