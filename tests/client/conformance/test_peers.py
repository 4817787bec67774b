"""Mirror of client/conformance/peers.py, at bare sockets; what works is shown by test_broker.py."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.msgpack import encode
from raw_sockets import RawSockets

from pronghorn.client.conformance import peers
from pronghorn.client.conformance.findings import Failure
from pronghorn.client.conformance.peers import Broker, Peer, StreamWire, broker_at, decoded


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "x.stream"))
        listener.listen()
        yield listener


@pytest.fixture
def stream(listener: socket.socket) -> Iterator[tuple[Peer, socket.socket]]:
    wire = StreamWire(listener.getsockname())
    other, _ = listener.accept()
    with wire.socket, other:
        yield Peer(wire), other


def frame(message: Any) -> bytes:
    data = encode(message)
    return len(data).to_bytes(4, "little") + data


def test_bundles_are_taken_apart(stream: tuple[Peer, socket.socket]) -> None:
    peer, other = stream
    other.sendall(frame([56, [[49, 1, 2], [49, 2, 3]]]) + frame([54, 7]))
    assert [peer.reply() for _ in range(3)] == [[49, 1, 2], [49, 2, 3], [54, 7]]


def test_buffers_belong_to_their_reply(stream: tuple[Peer, socket.socket]) -> None:
    peer, other = stream
    other.sendall(frame([49, 1, 2, 1]) + (3).to_bytes(4, "little") + b"abc" + frame([54, 7]))
    assert peer.take() == ([49, 1, 2, 1], [b"abc"])
    assert peer.take() == ([54, 7], [])


def test_what_comes_before_the_pong_is_given(stream: tuple[Peer, socket.socket]) -> None:
    peer, other = stream
    other.sendall(frame([49, 1, 2]) + frame([54, "conformance 0"]))
    assert peer.until_pong() == [[49, 1, 2]]


def test_a_stream_that_ends_is_a_failure(stream: tuple[Peer, socket.socket]) -> None:
    peer, other = stream
    other.close()
    with pytest.raises(Failure, match="the broker has closed the stream"):
        peer.reply()
    assert isinstance(peer.wire, StreamWire)
    assert peer.wire.ends()


def test_silence_is_a_failure(
    stream: tuple[Peer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, _ = stream
    assert isinstance(peer.wire, StreamWire)
    peer.wire.socket.settimeout(0.01)
    with pytest.raises(Failure, match="nothing comes"):
        peer.reply()
    assert not peer.wire.ends()


def test_nobody_listening_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nobody listens"):
        Broker(None, f"ipc://{tmp_path}/none").stream()


def test_what_is_no_broker_is_a_failure(
    sockets: RawSockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PATIENCE_S", 0.02)
    endpoint = f"ipc://{tmp_path}/mute"
    sockets.bind(zmq.ROUTER, endpoint)
    with pytest.raises(Failure, match="nothing comes"), broker_at(endpoint):
        pass


@pytest.mark.parametrize("data", [b"\xc1", b"\x90", b"\x80", b"\x01\x02"])
def test_what_is_no_message_is_a_failure(data: bytes) -> None:
    with pytest.raises(Failure):
        decoded(data)
