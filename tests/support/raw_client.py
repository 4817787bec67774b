"""A client of the wire without anything of ours: a DEALER that speaks msgpack, for tests."""

from typing import Any

from msgspec.msgpack import decode, encode
from raw_sockets import RawSockets

(
    HELLO,
    GOODBYE,
    CALL,
    MAP_CHUNK,
    CANCEL,
    ACK,
    PING,
    BUNDLE,
) = (33, 34, 35, 36, 37, 39, 40, 43)
WELCOME, RESULT, MAP_RESULT, ERROR, PONG, REPLY_BUNDLE = 48, 49, 50, 53, 54, 56


class RawClient:
    """One connection, as a stranger's until it says hello."""

    def __init__(self, sockets: RawSockets, endpoint: str, **options: Any) -> None:
        self.socket = sockets.dealer(endpoint, **options)
        self._ready: list[tuple[list[Any], list[bytes]]] = []  # replies that came in a bundle
        self._pings = 0

    def send(self, *frames: bytes | list[Any]) -> None:
        """Send one message; frames given as lists are encoded."""
        self.socket.send_multipart(
            [frame if isinstance(frame, bytes) else encode(frame) for frame in frames]
        )

    def receive(self) -> list[Any]:
        """Receive the next reply that has no buffers."""
        reply, buffers = self.receive_with_buffers()
        assert not buffers
        return reply

    def receive_with_buffers(self) -> tuple[list[Any], list[bytes]]:
        """Receive the next reply."""
        if not self._ready:
            frame, *buffers = self.socket.recv_multipart()
            message = decode(frame)
            if message[0] == REPLY_BUNDLE:
                self._ready = [(reply, []) for reply in message[1]]
            else:
                self._ready = [(message, buffers)]
        return self._ready.pop(0)

    def ask(self, *frames: bytes | list[Any]) -> list[Any]:
        """Send one message and receive the next reply."""
        self.send(*frames)
        return self.receive()

    def hello(self) -> dict[str, Any]:
        """Open a session and return what the welcome tells."""
        kind, id_, info = self.ask([HELLO, "hello", "raw"])
        assert (kind, id_) == (WELCOME, "hello")
        return info

    def nothing_more_comes(self) -> bool:
        """Whether the answer to a ping is the next reply: the broker answers in order."""
        self._pings += 1
        return self.ask([PING, f"ping {self._pings}"])[:2] == [PONG, f"ping {self._pings}"]

    def counters(self) -> dict[str, int]:
        """Read the broker's counters."""
        kind, id_, status, _ = self.ask([CALL, "status", "pronghorn.status"])
        assert (kind, id_) == (RESULT, "status")
        return status["counters"]
