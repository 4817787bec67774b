"""Records which calls come when, and hands that to who keeps it. An IO shell.

What comes goes through `take`, which writes it down and hands it on to the core; a broker that
does not record has nothing of this in the way of its calls. Whole records leave in batches over a
socket of packets, so that a broker which dies leaves no torn one. It never blocks: what the socket
does not take waits, up to a bound, and is counted beyond. Format: wire/TRACE.md.

Mirror: tests/broker/test_recording.py.
"""

import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from msgspec import Raw

from .events import Event, Received, ReceivedJson
from .wire.codec import array_length
from .wire.link import wrap_json
from .wire.messages import NIL, Call, MapChunk
from .wire.references import may_refer
from .wire.table import BUILTIN_PREFIX
from .wire.trace import (
    PARAMS_BYTES_MAX,
    PARAMS_JSON,
    PARAMS_LEFT_OUT,
    PARAMS_MSGPACK,
    RECORD_BYTES_MAX,
    TRACE_FORMAT,
    Arrival,
    Lost,
    TraceStart,
    pack_record,
)

_log = logging.getLogger("pronghorn.broker.server")

BATCH_BYTES: Final = 32 * 1024
"""From so many on a batch leaves at once. With one more record it still is a packet."""

BATCH_S: Final = 0.05
WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
CLIENTS_MAX: Final = 100_000

PACKET_BYTES_MAX: Final = BATCH_BYTES + RECORD_BYTES_MAX
_SEND_BYTES: Final = 256 * 1024  # asked for; the system may give less, which is enough for a packet
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)


class Recording:
    """A recording that is on.

    Args:
        sock: Takes the packets; a ``SOCK_SEQPACKET``.
        epoch: Of this broker.
        sizes_only: Whether parameters are left out.
        full_name: Gives the full name of a node, `None` if there is none of that name.
        handle: The core's.
        ended: Called once when nobody takes the packets any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        epoch: str,
        *,
        sizes_only: bool,
        full_name: Callable[[str], str | None],
        handle: Callable[[Event, float], None],
        ended: Callable[[], None],
    ) -> None:
        self._socket = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._params_max = -1 if sizes_only else PARAMS_BYTES_MAX
        self._full_name = full_name
        self._handle = handle
        self._ended = ended
        self._numbers: dict[bytes, int] = {}  # routing id -> number of the client
        start = TraceStart(TRACE_FORMAT, epoch, time.monotonic_ns(), time.time_ns())
        self._batch = bytearray(pack_record(start))
        self._due = 0.0  # monotonic seconds when the batch is to leave, if there is one
        self._waiting: deque[bytes] = deque()  # batches that the socket did not take
        self._waiting_bytes = 0
        self._lost = 0  # calls since the last record
        self._has_ended = False

    def take(self, event: Event, now: float) -> None:
        """Write an event down if it is a call, and hand it on."""
        if type(event) is Received:
            message = event.message
            if type(message) is Call:
                self._note(event, now, message.node, -1, message.params)
            elif type(message) is MapChunk:
                self._note(event, now, message.node, array_length(message.items), message.items)
        elif type(event) is ReceivedJson:
            self._note(event, now, event.request.method, -1, event.request.params)
        self._handle(event, now)

    def next_due(self) -> float:
        """Hand over what has waited long enough; returns when the next is due, or infinity."""
        if not (self._batch or self._waiting):
            return float("inf")
        now = monotonic()
        if now >= self._due:
            self.flush()
            self._due = now + BATCH_S  # of what was not taken
        return self._due

    def flush(self) -> None:
        """Hand over what there is, as far as it is taken."""
        if self._batch:
            self._waiting.append(bytes(self._batch))
            self._waiting_bytes += len(self._batch)
            self._batch.clear()
        while self._waiting and not self._has_ended:
            try:
                self._socket.send(self._waiting[0], _DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                self._has_ended = True
                _log.info("calls are recorded no more: %s", error)
                self._ended()
                return
            self._waiting_bytes -= len(self._waiting.popleft())

    def close(self) -> None:
        """Hand over the rest and let go of the socket."""
        if self._lost:
            self._batch += pack_record(Lost(self._lost))
        self.flush()
        self._socket.close()

    def _note(
        self, event: Received | ReceivedJson, now: float, name: str, items: int, params: Raw
    ) -> None:
        node = self._full_name(name)
        if node is None or node.startswith(BUILTIN_PREFIX):
            return
        if self._waiting_bytes >= WAITING_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            self._add(pack_record(Lost(self._lost)), now)
            self._lost = 0
        codec = PARAMS_LEFT_OUT
        if type(event) is Received:
            is_small = len(params) <= self._params_max and not event.buffers
            if is_small and not may_refer(params):  # who replays it has not what is referred to
                codec = PARAMS_MSGPACK
        elif len(params) <= self._params_max:
            codec, params = PARAMS_JSON, wrap_json(params)
        arrival = Arrival(
            int(now * 1e9),
            self._number(event.peer),
            node,
            event.size,
            items,
            codec,
            params if codec else NIL,
        )
        self._add(pack_record(arrival), now)

    def _add(self, record: bytes, now: float) -> None:
        if not self._batch:
            self._due = now + BATCH_S
        self._batch += record
        if len(self._batch) >= BATCH_BYTES:
            self.flush()

    def _number(self, peer: bytes) -> int:
        number = self._numbers.get(peer)
        if number is None:
            if len(self._numbers) >= CLIENTS_MAX:
                self._numbers.clear()
            number = self._numbers[peer] = len(self._numbers) + 1
        return number
