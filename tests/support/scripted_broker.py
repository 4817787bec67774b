"""A broker that does what a test tells it, step by step: for what a real one never does."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq
from raw_sockets import RawSockets

from pronghorn.broker.wire.codec import decode_bundle, decode_request, encode_message, is_bundle
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import Call, Hello, Result, Welcome, WelcomeInfo

T = TypeVar("T")

PROBE = "probe"


class ScriptedBroker:
    """A ROUTER for one client at a time. `stop` ends it like a crash, `start` begins anew."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.endpoint = f"ipc://{folder}/scripted.sock"
        self._limits = limits or Limits()
        self._lives = 0
        self._peer = b""
        self._sockets: RawSockets | None = None
        self._router: Any = None
        self._thread = ThreadPoolExecutor(1, "scripted-broker")

    def start(self) -> None:
        self._lives += 1
        self._sockets = RawSockets()
        self._router = self._sockets.bind(zmq.ROUTER, self.endpoint)

    def stop(self) -> None:
        """Be gone, with what was sent and not read."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def close(self) -> None:
        self._thread.shutdown()
        self.stop()

    def play(self, script: Callable[["ScriptedBroker"], T]) -> Future[T]:
        """Have a script played beside the test."""
        return self._thread.submit(script, self)

    def take(self) -> Any:
        """Take the next message: `PROBE`, or what was sent, buffers as bytes behind it."""
        self._peer, *frames = self._router.recv_multipart()
        if frames == [b""]:
            return PROBE
        if is_bundle(frames[0]):
            return decode_bundle(frames[0])
        message = decode_request(frames[0])
        return [message, *frames[1:]] if frames[1:] else message

    def send(self, *messages: Any) -> None:
        """Send one message; bytes are frames as they are."""
        frames = [one if isinstance(one, bytes) else encode_message(one) for one in messages]
        self._router.send_multipart([self._peer, *frames])

    def greet(self) -> None:
        """Answer the probe of a new connection and the hello that follows."""
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
def scripted_broker(folder: Path, limits: Limits | None = None) -> Iterator[ScriptedBroker]:
    """Make a broker, started, for the time of a block."""
    broker = ScriptedBroker(folder, limits)
    broker.start()
    try:
        yield broker
    finally:
        broker.close()
