"""Clients of the wire without anything of ours, for tests: a DEALER, and a plain stream."""

import socket
from contextlib import suppress
from struct import Struct
from typing import Any

from msgspec.msgpack import decode, encode
from raw_sockets import WAIT_MS, RawSockets

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
            frame, *buffers = self._next()
            message = decode(frame)
            if message[0] == REPLY_BUNDLE:
                self._ready = [(reply, []) for reply in message[1]]
            else:
                self._ready = [(message, buffers)]
        return self._ready.pop(0)

    def receive_frame(self) -> bytes:
        """Receive one frame, which need not be msgpack."""
        frame: bytes = self.socket.recv()
        return frame

    def _next(self) -> list[bytes]:
        frames: list[bytes] = self.socket.recv_multipart()
        return frames

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
        kind, id_, status, _ = self.ask([CALL, "status", "pronghorn.stats"])
        assert (kind, id_) == (RESULT, "status")
        return status["counters"]


class RawStreamClient(RawClient):
    """The same over the stream beside an ipc endpoint; the greeting is taken in by itself."""

    _length = Struct("<I")

    def __init__(self, endpoint: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_MS / 1000)
        self.socket.connect(endpoint.removeprefix("ipc://") + ".stream")
        self._ready = []
        self._pings = 0
        kind, id_, self.info = self.receive()
        assert (kind, id_) == (WELCOME, None)

    def send(self, *frames: bytes | list[Any]) -> None:
        """Send frames; those given as lists are encoded."""
        encoded = [frame if isinstance(frame, bytes) else encode(frame) for frame in frames]
        self.socket.sendall(b"".join(self._length.pack(len(one)) + one for one in encoded))

    def receive_frame(self) -> bytes:
        """Receive one frame, which need not be msgpack."""
        [length] = self._length.unpack(self._read(self._length.size))
        return self._read(length)

    def is_closed(self) -> bool:
        """Whether nothing comes any more but the end of the stream."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:  # something was not read
            return True

    def ends(self) -> bool:
        """Read all that comes until the end of the stream."""
        with suppress(ConnectionResetError):  # something was not read
            while self.socket.recv(1 << 20):
                pass
        return True

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _next(self) -> list[bytes]:
        frame = self.receive_frame()
        message = decode(frame)
        buffers = message[3] if message[0] == RESULT and len(message) > 3 else 0
        return [frame, *(self.receive_frame() for _ in range(buffers))]

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = self.socket.recv(size)
            if not part:
                raise EOFError("the broker has closed the stream")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
