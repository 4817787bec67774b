"""What a connection to a broker stands on: a stream beside an ipc endpoint, or ZeroMQ. IO shells.

Mirror: tests/client/test_sockets.py.
"""

from __future__ import annotations

import os
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    PermissionDeniedError,
)
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.places import check_endpoint, is_tcp, stream_path

if TYPE_CHECKING:
    import zmq

    from pronghorn.broker.wire.keys import PrivateKey

SOON_MS = 20
"""How long `receive_soon` waits."""

RETRY_S = 0.01
"""How long to wait before the next attempt to connect, while somebody waits for the connection."""


class Attached(NamedTuple):
    """An event loop, and what it calls."""

    loop: AbstractEventLoop
    on_readable: Callable[[], None]
    on_lost: Callable[[], None]


class BrokerSocket(Protocol):
    """One connection, which carries frames."""

    def connect(self) -> bool:
        """Connect if need be; `False` if nobody listens, so that it has to be tried again.

        Raises:
            InvalidArgumentError: What is there can't be connected to.
            OverloadedError: The system has no more sockets.
        """

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send frames, without waiting.

        Raises:
            BrokerLostError: There is no connection at the moment; nothing was sent.
        """

    def readable(self) -> bool:
        """Whether a frame waits; to be asked after each send before the loop is left to itself."""

    def receive(self) -> bytes | None:
        """Receive one frame without waiting, `None` when there is none.

        Which message it is part of is of no interest: each frame tells what follows it.
        """

    def receive_soon(self) -> bytes | None:
        """Receive one frame, waiting up to `SOON_MS` for it; `None` when none came."""

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a frame has come, the connection is lost, or the bell has rung.

        Args:
            timeout_ms: -1 for as long as it takes.

        Returns:
            Whether one of them may be so; `False` when the time is up.
        """

    def disconnected(self) -> bool:
        """Whether the connection was lost since this was asked last."""

    def refusal(self) -> PermissionDeniedError | None:
        """Tell why the broker lets this client not in, if `disconnected` has heard that it does."""

    def attach(self, attached: Attached) -> None:
        """Have an event loop call back when frames have come, or the connection is lost."""

    def detach(self) -> None:
        """Have the loop call back no more."""

    def close(self) -> None:
        """Close it; what was sent still leaves."""


class Sockets:
    """Makes the sockets of one client in one process.

    Args:
        endpoint: Where the broker is.
        key: What the client shows there, and the broker's public key; only over tcp.

    Raises:
        InvalidArgumentError: The endpoint is malformed, or it is none that keys are shown to.
    """

    def __init__(self, endpoint: str, key: PrivateKey | None = None) -> None:
        check_endpoint(endpoint, insecure=True)
        if key is not None and not is_tcp(endpoint):
            raise InvalidArgumentError(f"{endpoint}: keys are for tcp endpoints only")
        self.key = key
        self.endpoint = endpoint
        self._lock = threading.Lock()  # guards the making of what follows
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None  # made for the first socket

    def open(self, bell: int | None = None) -> BrokerSocket:
        """Make a socket.

        Args:
            bell: A descriptor that ends its `wait` when it becomes readable.

        Raises:
            InvalidArgumentError: The endpoint can't be connected to.
            OverloadedError: There are no more sockets.
        """
        path = self._stream_path()
        if path is not None:
            from .streamsocket import StreamSocket

            return StreamSocket(path, bell)
        from .zmqsocket import ZmqSocket, make_context

        with self._lock:
            if self._context is None:
                self._context = make_context()
        return ZmqSocket(self._context, self.endpoint, bell, self.key)

    def is_outdated(self) -> bool:
        """Whether a socket that can't connect should be closed and another one be opened."""
        return self._stream_path() is None

    def close(self) -> None:
        """Let go of what the sockets share; all of them have to be closed."""
        if self._context is not None:
            self._context.term()
            self._context = None

    def _stream_path(self) -> str | None:
        """Return the path of the stream to connect to; `None` if it has to be ZeroMQ.

        The broker makes the stream first and removes it last. So if only the other is there it is
        no broker's: a proxy's, say. Where there is neither a broker may be about to start.
        """
        path = stream_path(self.endpoint)
        if path is None or os.path.exists(path):
            return path
        return None if os.path.exists(self.endpoint.removeprefix("ipc://")) else path


def not_connected() -> BrokerLostError:
    """Make the error of what can't be sent."""
    return BrokerLostError(
        "there is no connection to the broker", ErrorDetails(outcome="not_started")
    )
