"""A connection on an event loop: a socket, the core, and the loop's readers. An IO shell.

Requests opened within one turn of the loop leave as one message. Belongs to the loop it was made
on.

Mirror: tests/client/test_aioconnection.py.
"""

import asyncio
from collections.abc import Callable, Sequence
from os import getpid
from typing import Generic

import zmq

from pronghorn.broker.wire.errors import BrokerLostError, ErrorDetails
from pronghorn.broker.wire.link import Buffer

from .core import BUNDLE_REQUESTS, ClientCore, Completion, Handle
from .sockets import BrokerSocket

_BURST_FRAMES = 64  # taken in before other things on the loop get their turn


class AsyncConnection(Generic[Handle]):
    """One connection; `deliver` is called on the loop with each completion."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        *,
        client: str,
        connect_timeout_s: float,
        deliver: Callable[[Completion[Handle]], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._deliver = deliver
        self.pid = getpid()  # the process it belongs to: a fork must not use it
        self.core: ClientCore[Handle] = ClientCore(client)
        self._socket = BrokerSocket(context, endpoint)
        self._greeted = False  # whether a hello was sent on the present connection
        self._welcomed: asyncio.Future[None] = self.loop.create_future()  # done iff welcomed
        self._flush_is_scheduled = False
        self.loop.add_reader(self._socket.fd, self._on_readable)
        self.loop.add_reader(self._socket.monitor_fd, self._on_monitor)
        self.loop.call_soon(self._on_readable)

    async def ready(self) -> None:
        """Wait until the broker has welcomed us.

        Raises:
            BrokerLostError: It did not in time.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await asyncio.shield(self._welcomed)
        except TimeoutError:
            raise BrokerLostError(
                f"no broker answers at {self._endpoint} within {self._connect_timeout_s:g} s: "
                "is `pronghorn serve` running?",
                ErrorDetails(outcome="not_started", retryable=True),
            ) from None

    def call(
        self,
        handle: Handle,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
    ) -> int:
        """Open a call; it leaves with all others of this turn of the loop."""
        request_id = self.core.call(handle, node, params, timeout_ms)
        if self.core.outgoing_requests >= BUNDLE_REQUESTS:
            self._flush()  # so that the broker begins while more calls are made
        elif not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self.loop.call_soon(self._flush)
        return request_id

    def chunk(self, handle: Handle, node: str, items: bytes, timeout_ms: float | None) -> int:
        """Open a chunk of a map."""
        request_id = self.core.chunk(handle, node, items, timeout_ms)
        self._schedule_flush()
        return request_id

    def ping(self, handle: Handle) -> None:
        """Open a ping."""
        self.core.ping(handle)
        self._schedule_flush()

    def cancel(self, request_id: int) -> None:
        """Cancel a request; its completion is not of interest any more."""
        self.core.cancel(request_id)
        self._schedule_flush()

    def give_up(self, why: str) -> None:
        """End all that is open with `BrokerLostError`."""
        for completion in self.core.lost(why):
            self._deliver(completion)

    def close(self) -> None:
        """Say goodbye and close."""
        if self.pid != getpid():
            return
        self.loop.remove_reader(self._socket.fd)
        self.loop.remove_reader(self._socket.monitor_fd)
        self.give_up("the client was closed")
        self.core.goodbye()
        if self._socket.writable():
            self._socket.send(self.core.outgoing())
        self._socket.close()
        self._welcomed.cancel()

    def _schedule_flush(self) -> None:
        if not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what the core has to send. Guarded by ``scripts/bench guard``."""
        self._flush_is_scheduled = False
        outgoing = self.core.outgoing
        sent = False
        try:
            while frames := outgoing():
                self._socket.send(frames)
                sent = True
                if not self.core.has_waiting:
                    break
        except BrokerLostError as error:
            self._lost(error.message)
        if sent and self._socket.readable():  # sending may have used up the wake-up
            self.loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        if not self._greeted and self._socket.writable():
            self._greeted = True
            self.core.hello()
            self._flush()
        for _ in range(_BURST_FRAMES):
            frame = self._socket.receive()
            if frame is None:
                break
            self._receive(frame)
            if not self._socket.readable():
                break
        else:
            self.loop.call_soon(self._on_readable)
        if self.core.has_outgoing:
            self._flush()

    def _receive(self, frame: bytes) -> None:
        deliver = self._deliver
        for completion in self.core.receive((frame,)):
            deliver(completion)
        if self.core.info is None:  # a new connection: the end of the old one is no news
            self._socket.disconnected()
            if self._welcomed.done():
                self._welcomed = self.loop.create_future()
        elif not self._welcomed.done():
            self._welcomed.set_result(None)

    def _on_monitor(self) -> None:
        if not self._socket.disconnected():
            return
        while (frame := self._socket.receive()) is not None:  # what came before the end
            self._receive(frame)
        self._lost("the broker closed the connection or is gone")

    def _lost(self, why: str) -> None:
        self._greeted = False
        if self._welcomed.done():
            self._welcomed = self.loop.create_future()
        self.give_up(why)
