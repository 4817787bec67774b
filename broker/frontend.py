"""The broker's ROUTER socket towards clients. An IO shell: knows frames and routing ids only.

The traps of ZeroMQ that are handled here: ROUTER drops silently unless MANDATORY; a blocking send
would stop the broker, so every send has NOBLOCK; MAXMSGSIZE and the high-water mark have to be set
before bind; the descriptor is edge-triggered, so whoever polls it asks `readable` after every send.

Mirror: tests/broker/test_frontend.py.
"""

import ctypes
import os
import secrets
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import zmq
from zmq.backend import Socket as BackendSocket

from .peers import Peers
from .wire.errors import InvalidArgumentError
from .wire.limits import KIB, Limits
from .wire.link import Buffer
from .wire.places import check_endpoint

BURST_MESSAGES = 256
"""Most messages taken in before the broker turns to its workers again."""

BURST_FRAMES = 32
"""Most frames behind the first ones of these messages, each a request of its own as a rule: of bad
ones, which cost more, 256 messages of 32 frames took 0.2 s, in which nobody else was served."""

_BURST_BYTES = 16 * KIB  # the same for bundles of many requests

HANDSHAKE_MS = 3000  # a mute peer is dropped after it; libzmq's 30 s let 2,000 of them sit there
_BACKLOG = 4096  # at libzmq's 100, 3,000 connects took 23.5 s; now 0.07 s
_LINGER_MS = 200  # what is in the pipes at shutdown gets so long to leave
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 5000, 15000  # tcp only: the kernel tells of ipc peers
# Below it a copy is cheaper than pyzmq's way to keep track of the buffer: a further thread, and a
# message to it per frame.
_ZERO_COPY_BYTES = 512 * KIB

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE) | _NOBLOCK


class Delivery(Enum):
    """What became of a message for a client."""

    SENT = "sent"
    GONE = "gone"  # no such peer any more
    FULL = "full"  # its pipe is full: it has more open than it was granted


class Frontend:
    """Owns the ZeroMQ context and the ROUTER socket.

    Args:
        limits: Towards clients.
        peers: Told of each new client.
    """

    def __init__(self, limits: Limits, peers: Peers) -> None:
        self._peers = peers
        self._known = peers.known
        self._frames_max = limits.frames + 1  # one more, so that the parser sees the excess
        self._context = zmq.Context()
        seed_routing_ids(self._context)
        self._socket = socket = make_router(self._context, limits)
        # The backend's own methods: the wrappers around them cost as much again.
        self._recv = BackendSocket.recv.__get__(socket)
        self._send = BackendSocket.send.__get__(socket)
        self._get = BackendSocket.get.__get__(socket)
        self._ipc_paths: list[Path] = []
        # Whether something was sent since `readable` was asked last: sending may use up the wake-up
        # of the descriptor.
        self.touched = False

    def bind(self, endpoints: Sequence[str], *, insecure: bool) -> tuple[str, ...]:
        """Bind all endpoints and return them as clients have to name them.

        Raises:
            InvalidArgumentError: An endpoint is malformed, in use, or not allowed.
        """
        bound: list[str] = []
        # ipc first: options are copied at bind, and heartbeats are for tcp only.
        for endpoint in sorted(endpoints, key=lambda one: not one.startswith("ipc://")):
            check_endpoint(endpoint, insecure=insecure)
            if endpoint.startswith("tcp://"):
                set_heartbeats(self._socket)
            umask = os.umask(0o177)  # a socket file gets its rights from it
            try:
                bound.append(bind_endpoint(self._socket, endpoint))
            finally:
                os.umask(umask)
            if endpoint.startswith("ipc://"):
                self._ipc_paths.append(Path(endpoint.removeprefix("ipc://")))
        return tuple(bound)

    def fileno(self) -> int:
        """Return the descriptor to poll: edge-triggered, see the module's docstring."""
        descriptor = self._socket.getsockopt(zmq.FD)
        assert isinstance(descriptor, int)
        return descriptor

    def readable(self) -> bool:
        """Whether a message waits; to be asked after every send and before every poll."""
        return bool(self._get(_EVENTS) & _POLLIN)

    def receive_burst(self) -> list[list[bytes]]:
        """Take in what waits, up to `BURST_MESSAGES`: each the routing id and the frames.

        Guarded by ``scripts/bench guard``.
        """
        messages: list[list[bytes]] = []
        try:
            messages.append(self._receive())
            if not self._get(_EVENTS) & _POLLIN:
                return messages
            # More than one: from here the exception at the end is cheaper than asking each time.
            further = size = 0
            while len(messages) < BURST_MESSAGES and further < BURST_FRAMES and size < _BURST_BYTES:
                message = self._receive()
                messages.append(message)
                further += len(message) - 2
                size += len(message[1])
        except zmq.Again:
            return messages
        return messages

    def send_one(self, peer: bytes, frame: bytes) -> Delivery:
        """Send a message of one small frame; as `send`. Guarded by ``scripts/bench guard``."""
        self.touched = True
        try:
            self._send(peer, _SNDMORE)
            self._send(frame, _NOBLOCK)
        except zmq.ZMQError as error:
            return _undelivered(error)
        return Delivery.SENT

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Send one message to a client, or not at all; never blocks."""
        self.touched = True
        return send_frames(self._send, peer, frames)

    def close(self) -> None:
        """Let what was sent leave within the linger time, then remove the socket files."""
        self._socket.close()
        self._context.term()
        for path in self._ipc_paths:
            path.unlink(missing_ok=True)

    def _receive(self) -> list[bytes]:
        recv = self._recv
        peer = recv(_NOBLOCK)
        # A frame object knows whether more follow it, for half the price of asking the socket.
        frame = recv(_NOBLOCK, False)
        if peer not in self._known:
            self._peers.see(peer, pid_of(frame))
        frames: list[bytes] = [peer, frame.bytes]
        while frame.more:
            frame = recv(_NOBLOCK, False)
            if len(frames) <= self._frames_max:
                frames.append(frame.bytes)
        return frames


def make_router(context: "zmq.Context[zmq.Socket[bytes]]", limits: Limits) -> "zmq.Socket[bytes]":
    """Make a ROUTER with the options of all that clients connect to."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.socket_message_bytes)
    socket.setsockopt(zmq.SNDHWM, limits.socket_high_water_mark)
    socket.setsockopt(zmq.RCVHWM, limits.socket_high_water_mark)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    return socket


def set_heartbeats(socket: "zmq.Socket[bytes]") -> None:
    """Have libzmq find out about connections that have ended in silence; before `bind_endpoint`."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)


def bind_endpoint(socket: "zmq.Socket[bytes]", endpoint: str) -> str:
    """Bind one endpoint and return it as clients have to name it.

    Raises:
        InvalidArgumentError: It is in use, or can't be had.
    """
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise InvalidArgumentError(f"can't bind {endpoint}: {error}") from error
    last = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(last, bytes)
    return last.rstrip(b"\0").decode()


def send_frame(send: Callable[..., None], peer: bytes, frame: bytes) -> Delivery:
    """Send a message of one small frame; as `send_frames`."""
    try:
        send(peer, _SNDMORE)
        send(frame, _NOBLOCK)
    except zmq.ZMQError as error:
        return _undelivered(error)
    return Delivery.SENT


def send_frames(send: Callable[..., None], peer: bytes, frames: Sequence[Buffer]) -> Delivery:
    """Send one message to the client of a routing id by a ROUTER's `send`; never blocks."""
    last = len(frames) - 1
    try:
        send(peer, _SNDMORE)
        for index, frame in enumerate(frames):
            copy = len(frame) < _ZERO_COPY_BYTES
            send(frame, _SNDMORE if index < last else _NOBLOCK, copy)
    except zmq.ZMQError as error:
        return _undelivered(error)
    return Delivery.SENT


def pid_of(frame: zmq.Frame) -> int:
    """Read from a received frame the process of its sender; 0 if it is no ipc client's.

    libzmq has it from the kernel: ``Peer-Address`` is ``localhost:uid:gid:pid``.
    """
    try:
        kind, _, _, pid = str(frame.get("Peer-Address")).split(":")
        return int(pid) if kind == "localhost" else 0
    except (ValueError, zmq.ZMQError):
        return 0


def _undelivered(error: zmq.ZMQError) -> Delivery:
    if isinstance(error, zmq.Again):
        return Delivery.FULL
    if error.errno == zmq.EHOSTUNREACH:
        return Delivery.GONE
    raise error


def seed_routing_ids(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """Make the routing ids that libzmq gives out unpredictable.

    It counts up from a number of libc's rand(), which it seeds with time and pid when the first
    socket is made; so make one, seed anew, then make the ROUTER.
    """
    context.socket(zmq.PAIR).close(linger=0)
    ctypes.CDLL(None).srand(secrets.randbits(32))
