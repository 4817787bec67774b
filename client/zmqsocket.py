"""A connection over ZeroMQ: to tcp endpoints, and to brokers behind a proxy. An IO shell.

Mirror: tests/client/test_zmqsocket.py.
"""

import asyncio
import secrets
from collections.abc import Sequence
from struct import Struct as Layout
from typing import TYPE_CHECKING, Any, cast

import zmq
from zmq.backend import Socket as BackendSocket
from zmq.backend import zmq_poll

from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
)
from pronghorn.broker.wire.limits import KIB
from pronghorn.broker.wire.link import Buffer

from .sockets import SOON_MS, Attached, not_connected

if TYPE_CHECKING:
    from pronghorn.broker.wire.keys import PrivateKey

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE) | _NOBLOCK

_HAPPENED = Layout("=Hi")  # which event, and its descriptor or error
_MONITORED = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)

_RECONNECT_MS, _RECONNECT_MAX_MS = 10, 100
_LINGER_MS = 200  # for the goodbye
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 5000, 15000  # tcp only: the kernel tells of ipc peers
# Below it a copy is cheaper than pyzmq's way to keep track of the buffer: a further thread, and a
# message to it per frame.
_ZERO_COPY_BYTES = 512 * KIB
_SOCKETS_MAX = 16_384  # three for a connection; libzmq's 1023 are used up by 341 threads


def make_context() -> "zmq.Context[zmq.Socket[bytes]]":
    """Make a context; whoever makes it terminates it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, _SOCKETS_MAX)
    return context


class ZmqSocket:
    """A DEALER with the options the protocol wants, and a monitor that tells of a lost connection.

    ``IMMEDIATE`` keeps requests from being queued for a broker that is not there, ``PROBE_ROUTER``
    makes a new connection known to both sides.

    Raises:
        InvalidArgumentError: The endpoint is malformed.
        OverloadedError: The system or the context has no more sockets.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        bell: int | None,
        key: "PrivateKey | None" = None,
    ) -> None:
        self._socket = socket = _make_socket(context)
        self._endpoint = endpoint
        self._has_key = key is not None
        self._refused = False  # whether the broker has said no since `refusal` was asked last
        try:
            _set_options(socket, endpoint)
            if key is not None:
                socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
                socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
                socket.setsockopt(zmq.CURVE_SERVERKEY, key.server.encode())
            self._monitor = _make_monitor(socket)
            socket.connect(endpoint)
        except BaseException as error:  # an interrupt too: the context waits for all its sockets
            self.close()
            if isinstance(error, zmq.ZMQError):
                raise InvalidArgumentError(f"{endpoint!r} is no endpoint: {error}") from error
            raise
        self._recv = BackendSocket.recv.__get__(socket)
        self._send = BackendSocket.send.__get__(socket)
        self._get = BackendSocket.get.__get__(socket)
        self._get_of_monitor = BackendSocket.get.__get__(self._monitor)
        self.monitor_fd = cast(int, self._monitor.getsockopt(zmq.FD))
        self.disconnected()  # what happens before it is asked once does not wake the descriptor
        self.fd = cast(int, socket.getsockopt(zmq.FD))
        self._loop: asyncio.AbstractEventLoop | None = None
        # For zmq_poll. A plain descriptor stands for the monitor: its events are all alike, and
        # asking the socket itself would cost 1.4 us per poll.
        self._poll_items: list[tuple[Any, int]] = [(socket, _POLLIN), (self.monitor_fd, _POLLIN)]
        if bell is not None:
            self._poll_items.append((bell, _POLLIN))

    def connect(self) -> bool:
        """Tell that libzmq connects by itself, as often as it takes."""
        return True

    def readable(self) -> bool:
        """Whether a message waits; to be asked after each send before the descriptor is polled."""
        return bool(self._get(_EVENTS) & _POLLIN)

    def disconnected(self) -> bool:
        """Whether the connection was lost since this was asked last."""
        lost = False
        while self._get_of_monitor(_EVENTS) & _POLLIN:
            kind, _ = _HAPPENED.unpack(self._monitor.recv_multipart()[0])
            if kind == zmq.EVENT_DISCONNECTED:
                lost = True
            else:
                self._refused = True
        return lost

    def refusal(self) -> PermissionDeniedError | None:
        """Tell why the broker lets this client not in, if `disconnected` has heard that it does."""
        if not self._refused:
            return None
        self._refused = False
        if self._has_key:
            why = "it does not accept this client's key, which may have been revoked"
        else:
            why = "it wants a key: give one, or the PRONGHORN_KEY of the environment"
        return PermissionDeniedError(
            f"the broker at {self._endpoint} lets this client not in: {why}"
        )

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send one message.

        Raises:
            BrokerLostError: There is no connection at the moment; nothing was sent.
        """
        send = self._send
        last = len(frames) - 1
        try:
            if not last and len(frames[0]) < _ZERO_COPY_BYTES:
                send(frames[0], _NOBLOCK)
                return
            for index, frame in enumerate(frames):
                copy = len(frame) < _ZERO_COPY_BYTES
                send(frame, _SNDMORE if index < last else _NOBLOCK, copy)
        except zmq.Again:
            raise not_connected() from None

    def receive(self) -> bytes | None:
        """Receive one frame without waiting, `None` when there is none.

        Which message it is part of is of no interest: each frame tells what follows it.
        """
        try:
            frame: bytes = self._recv(_NOBLOCK)
        except zmq.Again:
            return None
        return frame

    def receive_soon(self) -> bytes | None:
        """Receive one frame, waiting some milliseconds for it; `None` when none came."""
        try:
            frame: bytes = self._recv()
        except zmq.Again:
            return None
        return frame

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a message has come, the connection is lost, or the bell has rung."""
        return bool(zmq_poll(self._poll_items, timeout_ms))

    def attach(self, attached: Attached) -> None:
        """Have an event loop call back; a message may wait already."""
        self._loop = attached.loop
        self._loop.add_reader(self.fd, attached.on_readable)
        self._loop.add_reader(self.monitor_fd, attached.on_lost)
        self._loop.call_soon(attached.on_readable)

    def detach(self) -> None:
        """Have the loop call back no more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self.fd)
            self._loop.remove_reader(self.monitor_fd)
        self._loop = None

    def close(self) -> None:
        """Close the socket; a goodbye that was sent leaves within the linger time."""
        if hasattr(self, "_monitor"):  # else there was no room for it
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close()


def _make_socket(context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
    try:
        return context.socket(zmq.DEALER)
    except zmq.ZMQError as error:
        raise _no_sockets(error) from error


def _set_options(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    socket.setsockopt(zmq.LINGER, _LINGER_MS)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.PROBE_ROUTER, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
    socket.setsockopt(zmq.SNDHWM, 0)  # what is in flight is bounded by the broker's grant
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RCVTIMEO, SOON_MS)  # only of receives that wait at all
    if endpoint.startswith("tcp://"):
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)


def _make_monitor(socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
    # The name that pyzmq would choose is that of a descriptor, which may be in use again before
    # libzmq has let go of the monitor that was called so.
    try:
        return socket.get_monitor_socket(_MONITORED, f"inproc://monitor-{secrets.token_hex(8)}")
    except zmq.ZMQError as error:
        raise _no_sockets(error) from error


def _no_sockets(error: zmq.ZMQError) -> OverloadedError:
    return OverloadedError(f"can't make a socket to the broker: {error}")
