"""Bare ZeroMQ sockets for tests, made by type and closed together."""

from typing import Any

import zmq

WAIT_MS = 10_000  # after which a test that waits for a message fails


class RawSockets:
    """Sockets in a context of their own."""

    def __init__(self) -> None:
        self._context: Any = zmq.Context()
        self._sockets: list[Any] = []

    def connect(self, kind: int, endpoint: str, **options: Any) -> Any:
        """Make a connected socket; options by their names without ``ZMQ_``."""
        socket = self._make(kind, options)
        socket.connect(endpoint)
        return socket

    def bind(self, kind: int, endpoint: str, **options: Any) -> Any:
        """Make a bound socket."""
        socket = self._make(kind, options)
        socket.bind(endpoint)
        return socket

    def dealer(self, endpoint: str, **options: Any) -> Any:
        """Make a connected DEALER."""
        return self.connect(zmq.DEALER, endpoint, **options)

    def req(self, endpoint: str, **options: Any) -> Any:
        """Make a connected REQ."""
        return self.connect(zmq.REQ, endpoint, **options)

    def close(self) -> None:
        """Close all sockets and wait until libzmq has let go of their descriptors."""
        for socket in self._sockets:
            socket.close(linger=0)
        self._context.term()

    def _make(self, kind: int, options: dict[str, Any]) -> Any:
        socket = self._context.socket(kind)
        self._sockets.append(socket)
        for name, value in {"RCVTIMEO": WAIT_MS, "SNDTIMEO": WAIT_MS, **options}.items():
            socket.setsockopt(getattr(zmq, name), value)
        return socket
