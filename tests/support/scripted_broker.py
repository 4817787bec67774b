"""A broker that does what a test tells it, step by step: for what a real one never does."""

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Any, Literal, TypeVar

import msgspec
import zmq
from raw_sockets import WAIT_MS, RawSockets
from trees import PATIENCE_S

from pronghorn.broker.wire.codec import decode_bundle, decode_request, encode_message, is_bundle
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import Call, Goodbye, Hello, Result, Welcome, WelcomeInfo
from pronghorn.client.sockets import BrokerSocket
from pronghorn.client.streamsocket import StreamSocket
from pronghorn.client.zmqsocket import ZmqSocket

T = TypeVar("T")
Transport = Literal["stream", "zmq"]

TRANSPORTS: Sequence[Transport] = ("stream", "zmq")
PROBE = "probe"

_LENGTH = Struct("<I")


class ScriptedBroker:
    """A broker for one client at a time. `stop` ends it like a crash, `start` begins anew."""

    def __init__(self, folder: Path, transport: Transport, limits: Limits | None = None) -> None:
        path = folder / "scripted.sock"
        self.endpoint = f"ipc://{path}"
        self._limits = limits or Limits()
        self._lives = 0
        self._ends = _Streams(f"{path}.stream") if transport == "stream" else _Router(self.endpoint)
        self._thread = ThreadPoolExecutor(1, "scripted-broker")

    def start(self) -> None:
        self._lives += 1
        self._ends.start()

    def stop(self) -> None:
        """Be gone, with what was sent and not read."""
        self._ends.stop()

    def close(self) -> None:
        self._thread.shutdown()
        self.stop()

    def play(self, script: Callable[["ScriptedBroker"], T]) -> Future[T]:
        """Have a script played beside the test."""
        return self._thread.submit(script, self)

    def take(self) -> Any:
        """Take what comes next: `PROBE` for a new client, or what was sent, buffers behind it."""
        first, *buffers = self._ends.take()
        if not first:
            return PROBE
        if is_bundle(first):
            return decode_bundle(first)
        message = decode_request(first)
        return [message, *buffers] if buffers else message

    def wait_for_news(self) -> None:
        """Wait until something has come, or has begun to, without taking it."""
        self._ends.wait_for_news()

    def hang_up(self) -> int:
        """Turn away who comes within a moment; returns how many that were."""
        assert isinstance(self._ends, _Streams)
        return self._ends.hang_up()

    def send(self, *messages: Any) -> None:
        """Send one message; bytes are frames as they are."""
        self._ends.send(
            [one if isinstance(one, bytes) else encode_message(one) for one in messages]
        )

    def is_left(self) -> bool:
        """Whether the next thing that the client says is goodbye, or that it hangs up."""
        if isinstance(self._ends, _Streams) and self._ends.has_ended():
            return True
        return isinstance(self.take(), Goodbye)

    def greet(self) -> None:
        """Greet a new client and answer the hello that follows."""
        assert self.take() == PROBE
        self.send(self.welcome(None))
        hello = self.take()
        if isinstance(hello, list):  # with a goodbye to an earlier session
            hello = hello[-1]
        assert isinstance(hello, Hello)
        self.send(self.welcome(hello.id))

    def answer(self, value: Any = None) -> Call:
        """Take a call and give it its result."""
        call = self.take()
        assert isinstance(call, Call)
        self.send(Result(call.id, msgspec.Raw(msgspec.msgpack.encode(value))))
        return call

    def welcome(self, request_id: Any) -> Welcome:
        info = WelcomeInfo(
            version=1, epoch=f"life {self._lives}", server="scripted", pid=0, limits=self._limits
        )
        return Welcome(request_id, info)


@contextmanager
def scripted_broker(
    folder: Path, transport: Transport, limits: Limits | None = None
) -> Iterator[ScriptedBroker]:
    """Make a broker, started, for the time of a block."""
    broker = ScriptedBroker(folder, transport, limits)
    broker.start()
    try:
        yield broker
    finally:
        broker.close()


def wait_until_lost(ours: BrokerSocket) -> None:
    """Wait until a client's socket can notice that the broker is gone."""
    if isinstance(ours, StreamSocket):
        assert ours._socket is not None
        _wait_for(ours._socket.fileno())
        return
    assert isinstance(ours, ZmqSocket)
    _wait_for(ours.monitor_fd)
    while ours._get(zmq.EVENTS) & zmq.POLLOUT:
        _wait_for(ours.fd)


def wait_until_greeted(ours: BrokerSocket) -> None:
    """Wait until libzmq has found a broker, and that has answered the probe."""
    assert isinstance(ours, ZmqSocket)
    while not ours.readable():
        _wait_for(ours.fd)


def _wait_for(descriptor: int) -> None:
    assert select.select([descriptor], [], [], PATIENCE_S)[0]


class _Router:
    """A ROUTER, for clients that speak ZeroMQ."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._peer = b""
        self._sockets: RawSockets | None = None
        self._router: Any = None

    def start(self) -> None:
        self._sockets = RawSockets()
        self._router = self._sockets.bind(zmq.ROUTER, self._endpoint)

    def stop(self) -> None:
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def wait_for_news(self) -> None:
        assert self._router.poll(WAIT_MS)

    def take(self) -> list[bytes]:
        self._peer, *frames = self._router.recv_multipart()
        return frames

    def send(self, frames: list[bytes]) -> None:
        self._router.send_multipart([self._peer, *frames])


class _Streams:
    """A listening socket beside the endpoint, for clients that use streams."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None

    def start(self) -> None:
        Path(self._path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(WAIT_MS / 1000)
        self._listener.bind(self._path)
        self._listener.listen()

    def stop(self) -> None:
        for each in self._client, self._listener:
            if each is not None:
                each.close()
        self._client = self._listener = None

    def wait_for_news(self) -> None:
        assert self._client is not None
        _wait_for(self._client.fileno())

    def has_ended(self) -> bool:
        """Wait for what comes next; whether it is the end."""
        assert self._client is not None
        return not self._client.recv(1, socket.MSG_PEEK)

    def hang_up(self) -> int:
        assert self._listener is not None
        if not select.select([self._listener], [], [], 0.01)[0]:
            return 0
        self._listener.accept()[0].close()
        return 1

    def take(self) -> list[bytes]:
        """Take a frame with its buffers, or an empty one for a new client."""
        if self._client is None:
            assert self._listener is not None
            self._client, _ = self._listener.accept()
            self._client.settimeout(WAIT_MS / 1000)
            return [b""]
        try:
            frame = self._frame(self._client)
        except EOFError:
            self._client.close()
            self._client = None
            return self.take()
        message = None if is_bundle(frame) else decode_request(frame)
        options = getattr(message, "options", None)
        buffers = options.buffers if options is not None else 0
        return [frame, *(self._frame(self._client) for _ in range(buffers))]

    def send(self, frames: list[bytes]) -> None:
        assert self._client is not None
        self._client.sendall(b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames))

    def _frame(self, client: socket.socket) -> bytes:
        [length] = _LENGTH.unpack(_read(client, _LENGTH.size))
        return _read(client, length)


def _read(client: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = client.recv(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
