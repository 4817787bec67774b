"""Connections that calls are sent over: Pronghorn's own, and bare ZeroMQ. IO shells.

Nothing is bundled: each call leaves by itself at its time, as if all came from different programs.
Mirror: tests/bench/load/test_lanes.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple, Protocol, cast

import msgspec
import zmq

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    PronghornError,
)
from pronghorn.broker.wire.messages import Durability, Error, MapResult, Result
from pronghorn.broker.wire.version import CLIENT_NAME
from pronghorn.client.aioconnection import AsyncConnection
from pronghorn.client.completions import Completion
from pronghorn.client.keys import key_for
from pronghorn.client.sockets import Sockets
from pronghorn.client.stopwatch import Extras

CONNECT_TIMEOUT_S = 2.0
_RETRY_S = 0.05
_BURST = 64  # replies taken in before the loop gets its turn
_POLLIN = int(zmq.POLLIN)


class Sent(NamedTuple):
    """A call that is open: when it was to be sent, when it was, of which kind it is."""

    planned_ns: int
    sent_ns: int
    kind: int


class _Ended(msgspec.Struct):
    """Of the report of a run what counts here."""

    status: str


_ended = msgspec.msgpack.Decoder(_Ended).decode

Deliver = Callable[[Sent, str | None], None]
"""Called with each call's one end and the code of its error, if it is one."""


class Lane(Protocol):
    """One connection."""

    async def connect(self) -> None:
        """Wait until the other side answers.

        Raises:
            PronghornError: It does not.
        """

    async def keep(self) -> None:
        """Connect again whenever the connection was lost, until cancelled."""

    def send(self, call: Sent, node: str, body: bytes, *, is_chunk: bool = False) -> bool:
        """Send a call, or a chunk of a map; `False` if there is no connection to send it over."""

    @property
    def is_holding_back(self) -> bool:
        """Whether calls wait in this process, as the other side lets it have no more open."""

    def open_calls(self) -> list[Sent]:
        """Return the calls that have no answer."""

    def close(self) -> None:
        """Close the connection; nothing is delivered any more."""


class PronghornLane:
    """A connection of the asynchronous client."""

    def __init__(
        self,
        endpoint: str,
        timeout_s: float,
        deliver: Deliver,
        on_event: Callable[[str], None],
        durability: Durability | None = None,
        workflows: Container[int] = (),
    ) -> None:
        """Prepare a connection.

        Args:
            endpoint: Of the broker.
            timeout_s: What each call is given.
            deliver: See `Deliver`.
            on_event: Called with what happens to the connection.
            durability: What is promised of the results; `None`: what the node says.
            workflows: The kinds whose calls are runs, which may fail and yet have a result.
        """
        self._timeout_ms = timeout_s * 1000
        self._extras = None if durability is None else Extras(durability=durability)
        self._forward: Deliver | None = deliver  # None once it is closed
        self._on_event = on_event
        self._workflows = workflows
        self._lost = asyncio.Event()
        self._open: dict[int, Sent] = {}  # by identity of the handle; answered ones are not in it
        self._sockets = Sockets(endpoint, key_for(endpoint))
        self._connection = self._make()

    async def connect(self) -> None:
        """Wait for the broker's welcome."""
        await self._connection.ready()

    async def keep(self) -> None:
        """Connect again whenever the connection was lost."""
        while True:
            await self._lost.wait()
            self._on_event("the connection to the broker was lost")
            while not self._is_connected:
                try:
                    if self._connection.is_closed:
                        self._connection = self._make()
                    await self._connection.ready()
                except PronghornError:
                    await asyncio.sleep(_RETRY_S)
            self._lost.clear()
            self._on_event("connected again")

    def send(self, call: Sent, node: str, body: bytes, *, is_chunk: bool = False) -> bool:
        """Send a call."""
        connection = self._connection
        if not self._is_connected:
            self._lost.set()
            return False
        self._open[id(call)] = call
        try:
            if is_chunk:
                connection.chunk(call, node, body, self._timeout_ms)
            else:
                connection.call(call, node, (body, ()), self._timeout_ms, None, self._extras)
        except InvalidArgumentError as error:  # too large for a broker that was started anew
            self._end(call, error.code)
            return True
        if connection.core.has_outgoing:
            connection.flush()
        return True

    @property
    def is_holding_back(self) -> bool:
        """Whether calls wait for the broker's grant."""
        return self._connection.core.has_waiting

    def open_calls(self) -> list[Sent]:
        """Return the calls that have no answer."""
        return list(self._open.values())

    def close(self) -> None:
        """Say goodbye."""
        self._forward = None
        self._connection.close()
        self._sockets.close()

    @property
    def _is_connected(self) -> bool:
        return self._connection.core.info is not None and not self._connection.is_closed

    def _make(self) -> AsyncConnection[Sent]:
        return AsyncConnection(
            self._sockets,
            client=CLIENT_NAME,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            deliver=self._deliver,
        )

    def _deliver(self, completion: Completion[Sent]) -> None:
        reply = completion.reply
        code = reply.code if type(reply) is Error else None
        if type(reply) is MapResult and reply.failures:
            code = reply.failures[0].code
        if type(reply) is Result and completion.handle.kind in self._workflows:
            code = _code_of_run(reply)
        if code == BrokerLostError.code:
            self._lost.set()
        self._end(completion.handle, code)

    def _end(self, call: Sent, code: str | None) -> None:
        del self._open[id(call)]
        if self._forward is not None:
            self._forward(call, code)


def _code_of_run(reply: Result) -> str | None:
    """Give the code of the error that a client raises of such a run, if it does."""
    status = _ended(reply.value).status
    if status == "succeeded":
        return None
    return CancelledError.code if status == "canceled" else NodeError.code


class FrameLane:
    """A DEALER to a service that answers each request with one message.

    With a REQ's envelope each request has an id before the empty frame, which whoever serves REQ
    sockets sends back with the reply. Without it nothing tells which reply is whose: they are taken
    in the order of the requests.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        deliver: Deliver,
        *,
        envelope: bool,
    ) -> None:
        self._forward = deliver
        self._envelope = envelope
        self._ids = 0
        self._by_id: dict[bytes, Sent] = {}  # id -> open call, with an envelope
        self._in_order: deque[Sent] = deque()  # open calls, without
        self._loop = asyncio.get_running_loop()
        self._socket = context.socket(zmq.DEALER)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
            self._socket.setsockopt(option, 0)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise InvalidArgumentError(f"{endpoint!r} is no endpoint: {error}") from error
        self._fd = cast(int, self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._on_readable)

    async def connect(self) -> None:
        """Do nothing: whether anybody answers, `probe` has found out."""

    async def keep(self) -> None:
        """Do nothing: libzmq connects again by itself, and what it sends meanwhile waits."""

    def send(self, call: Sent, node: str, body: bytes, *, is_chunk: bool = False) -> bool:
        """Send a frame."""
        if self._envelope:
            self._ids += 1
            key = self._ids.to_bytes(8, "big")
            self._by_id[key] = call
            self._socket.send_multipart((key, b"", body), zmq.NOBLOCK)
        else:
            self._in_order.append(call)
            self._socket.send(body, zmq.NOBLOCK)
        if self._readable():  # sending may have used up the wake-up
            self._loop.call_soon(self._on_readable)
        return True

    @property
    def is_holding_back(self) -> bool:
        """Never: a bare service grants nothing."""
        return False

    def open_calls(self) -> list[Sent]:
        """Return the calls that have no answer."""
        return [*self._by_id.values(), *self._in_order]

    def close(self) -> None:
        """Close the socket."""
        self._loop.remove_reader(self._fd)
        self._socket.close()

    def _readable(self) -> bool:
        return bool(cast(int, self._socket.getsockopt(zmq.EVENTS)) & _POLLIN)

    def _on_readable(self) -> None:
        for _ in range(_BURST):
            if self._socket.closed or not self._readable():
                return
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            call = self._call_of(frames)
            if call is not None:
                self._forward(call, None)
        self._loop.call_soon(self._on_readable)

    def _call_of(self, frames: list[bytes]) -> Sent | None:
        if self._envelope:
            return self._by_id.pop(frames[0], None)
        return self._in_order.popleft() if self._in_order else None


def probe(endpoint: str, body: bytes, *, envelope: bool) -> None:
    """Send one request to a bare service and wait for its answer.

    Raises:
        BrokerLostError: None came.
        InvalidArgumentError: The endpoint is malformed.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise InvalidArgumentError(f"{endpoint!r} is no endpoint: {error}") from error
        socket.send_multipart((b"probe", b"", body) if envelope else (body,))
        if not socket.poll(round(CONNECT_TIMEOUT_S * 1000)):
            raise BrokerLostError(
                f"no service at {endpoint} answers a frame of {len(body)} bytes within "
                f"{CONNECT_TIMEOUT_S:g} s: is it there, and does it want --envelope "
                f"{'none' if envelope else 'req'}?",
                ErrorDetails(outcome="maybe_executed"),
            )
