"""Bare ends of connections to a broker: a ZeroMQ socket, and a stream. An IO shell.

Mirror: tests/client/conformance/test_peers.py.
"""

import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from struct import Struct
from typing import Any, Protocol

import msgspec
import zmq
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.keys import PrivateKey

from .findings import Failure, shown

PATIENCE_S = 5.0
"""How long an answer may take: some ten thousand times what it takes."""

PING, PONG, BUNDLE = 40, 54, 56

SIGNATURES = {
    "add": "add(a: int, b: int) -> int",
    "count": "count(n: int) -> collections.abc.Iterator[int]",
    "divide": "divide(a: int, b: int) -> float",
    "size": "size(x: bytes) -> int",
    "zeros": "zeros(count: int) -> bytes",
    "wait": "wait() -> None",
}
"""Of the nodes in nodes.py, by which they are told from others of the same names."""

_LENGTH = Struct("<I")
_BUFFERS_AT = {49: 3, 51: 4}  # kind -> which element tells how many buffers follow

Frames = list[bytes]


class Wire(Protocol):
    """What carries messages."""

    def send(self, frames: Frames) -> None:
        """Send one message."""

    def receive(self) -> Frames:
        """Receive the next one.

        Raises:
            Failure: None comes within `PATIENCE_S`, or the connection has ended.
        """


class Peer:
    """One connection, with msgpack decoded and bundles taken apart."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._replies: deque[tuple[list[Any], Frames]] = deque()  # of a bundle, not taken yet
        self._pings = count()

    def send(self, *frames: bytes | list[Any]) -> None:
        """Send one message; lists are encoded."""
        self.wire.send([one if isinstance(one, bytes) else encode(one) for one in frames])

    def take(self) -> tuple[list[Any], Frames]:
        """Receive the next reply in msgpack, and its buffers."""
        while not self._replies:
            frame, *buffers = self.wire.receive()
            message = decoded(frame)
            if message[0] == BUNDLE:
                self._replies.extend((reply, []) for reply in message[1])
            else:
                self._replies.append((message, buffers))
        return self._replies.popleft()

    def reply(self) -> list[Any]:
        """Receive the next reply in msgpack."""
        return self.take()[0]

    def ask(self, *frames: bytes | list[Any]) -> list[Any]:
        """Send one message and receive the next reply."""
        self.send(*frames)
        return self.reply()

    def until_pong(self) -> list[list[Any]]:
        """Receive what is sent before the answer to a ping of now: a broker answers those in order.

        Replies to calls may come after it.
        """
        number = f"conformance {next(self._pings)}"
        self.send([PING, number])
        found = []
        while (reply := self.reply())[:2] != [PONG, number]:
            found.append(reply)
        return found


class ZmqWire:
    """A ZeroMQ socket."""

    def __init__(self, context: Any, kind: int, endpoint: str, options: dict[int, Any]) -> None:
        self.socket = context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        for option, value in options.items():
            self.socket.setsockopt(option, value)
        self.socket.connect(endpoint)

    def send(self, frames: Frames) -> None:
        """Send one message."""
        self.socket.send_multipart(frames)

    def receive(self) -> Frames:
        """Receive the next message."""
        if not self.socket.poll(PATIENCE_S * 1000):
            raise Failure(f"nothing comes within {PATIENCE_S:g} s")
        frames: Frames = self.socket.recv_multipart()
        return frames


class StreamWire:
    """The plain stream beside an ipc endpoint."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise Failure(f"nobody listens at {path}: {error}") from error

    def send(self, frames: Frames) -> None:
        """Send one message."""
        self.write(b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Failure(f"the stream has ended: {error}") from error

    def receive(self) -> Frames:
        """Receive a frame and its buffers."""
        frame = self._frame()
        message = decoded(frame) if frame[:1] not in (b"{", b"[") else [0]
        at = _BUFFERS_AT.get(message[0], len(message))
        behind: int = message[at] if len(message) > at else 0
        return [frame, *(self._frame() for _ in range(behind))]

    def ends(self) -> bool:
        """Whether the broker closes it, whatever comes before."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def _frame(self) -> bytes:
        [length] = _LENGTH.unpack(self._read(_LENGTH.size))
        return self._read(length)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except TimeoutError:
                raise Failure(f"nothing comes within {PATIENCE_S:g} s") from None
            except ConnectionError:
                part = b""
            if not part:
                raise Failure("the broker has closed the stream")
            data += part
        return data


class Broker:
    """A broker to look at, the connections to it, and the nodes of nodes.py that it has."""

    def __init__(self, context: Any, endpoint: str, key: PrivateKey | None = None) -> None:
        self._context = context
        self._key: dict[int, bytes] = {} if key is None else _options_of(key)
        self._wires: list[ZmqWire | StreamWire] = []
        self.endpoint = endpoint
        self.served: frozenset[str] = frozenset()
        self.limits: dict[str, int] = {}

    def dealer(self, **options: Any) -> Peer:
        """Connect a DEALER; options by their names without ``ZMQ_``."""
        return Peer(self._zmq(zmq.DEALER, options))

    def req(self, **options: Any) -> Peer:
        """Connect a REQ."""
        return Peer(self._zmq(zmq.REQ, options))

    def stream(self) -> Peer:
        """Connect to the stream beside the endpoint."""
        wire = StreamWire(self.endpoint.removeprefix("ipc://") + ".stream")
        self._wires.append(wire)
        return Peer(wire)

    def hang_up(self) -> None:
        """Close all connections."""
        for wire in self._wires:
            wire.socket.close()
        self._wires.clear()

    def _zmq(self, kind: int, options: dict[str, Any]) -> ZmqWire:
        by_number = {getattr(zmq, name): value for name, value in options.items()}
        wire = ZmqWire(self._context, kind, self.endpoint, self._key | by_number)
        self._wires.append(wire)
        return wire


@contextmanager
def broker_at(endpoint: str, key: PrivateKey | None = None) -> Iterator[Broker]:
    """Look at a broker for the time of a block: ask it for its limits and its nodes.

    Args:
        endpoint: Where it is.
        key: What all connections show, at a broker that wants a key.

    Raises:
        Failure: It does not answer.
    """
    with zmq.Context() as context:
        context.setsockopt(zmq.MAX_SOCKETS, 4096)
        broker = Broker(context, endpoint, key)
        try:
            peer = broker.dealer()
            welcome = peer.ask(b"")
            nodes = peer.ask([35, 1, "pronghorn.nodes"])
            broker.hang_up()
            try:
                broker.limits = welcome[2]["limits"]
                names = [
                    alias
                    for one in nodes[2]
                    for alias in one["aliases"]
                    if one["signature"] == SIGNATURES.get(alias)
                ]
            except (KeyError, IndexError, TypeError) as error:
                raise Failure(
                    f"this is no broker of Pronghorn: it says {shown(welcome)}, {shown(nodes)}"
                ) from error
            broker.served = frozenset(names)
            yield broker
        finally:
            broker.hang_up()


def decoded(frame: bytes) -> list[Any]:
    """Decode a frame in msgpack."""
    try:
        message = decode(frame)
    except msgspec.DecodeError as error:
        raise Failure(f"{shown(frame)} is no msgpack: {error}") from error
    if not isinstance(message, list) or not message:
        raise Failure(f"{shown(message)} is no array")
    return message


def _options_of(key: PrivateKey) -> dict[int, bytes]:
    return {
        zmq.CURVE_PUBLICKEY: key.public.encode(),
        zmq.CURVE_SECRETKEY: key.secret.encode(),
        zmq.CURVE_SERVERKEY: key.server.encode(),
    }
