"""One connection's state: what is pending, what waits for the grant, what is acknowledged. Pure.

Contract: `open` and `cancel` as the program asks, `receive` for each message that came; after each
of them the shell sends `outgoing` until it is empty, and hands each `Completion` to whoever waits.
`lost` when the connection broke. `Handle` is whatever the shell knows a waiting call by.

Rules: a request is sent only within the broker's grant and waits here otherwise; each gets exactly
one completion; replies that were read are acknowledged before the grant runs out.

Mirror: tests/client/test_core.py; joined with the other cores in tests/sim/.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, KIB, Limits
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import (
    Ack,
    BrokerMessage,
    Call,
    Cancel,
    Error,
    Goodbye,
    Hello,
    MapChunk,
    MapResult,
    Options,
    Ping,
    Pong,
    ReplyBundle,
    Result,
    Welcome,
    WelcomeInfo,
    bundle_requests,
)

Handle = TypeVar("Handle")

BUNDLED_BYTES_MAX = 4 * KIB
"""Of a frame that is bundled: the copy of a larger one costs more than its own frame."""

BUNDLE_REQUESTS = 128
"""Requests after which a message is full: the broker handles a message in one go."""

Reply = Result | MapResult | Error | Pong


class Completion(msgspec.Struct, Generic[Handle], frozen=True):
    """The one end of a request."""

    handle: Handle
    reply: Reply
    buffers: Sequence[bytes]


class ClientCore(Generic[Handle]):
    """The state of one connection."""

    def __init__(self, client: str) -> None:
        self._client = client
        self.info: WelcomeInfo | None = None  # None until the broker's first welcome
        self.limits: Limits = DEFAULT_LIMITS
        self._grant_requests = 0  # most requests that may be open; none before the welcome
        self._grant_bytes = 0
        # request id -> who waits for it and its size; a key is here iff it was sent, not answered
        self._pending: dict[int, tuple[Handle, int]] = {}
        self._pending_bytes = 0
        # requests beyond the grant, oldest first: (request id, handle, what to send, size)
        self._waiting: deque[tuple[int, Handle, bytes | list[Buffer], int]] = deque()
        self._given_up: set[int] = set()  # waiting ids that were cancelled before they were sent
        # to be sent, in order: a frame, or a frame with its buffers
        self._outgoing: list[bytes | list[Buffer]] = []
        self._ids = 0  # the request id given out last
        self._read = 0  # terminal replies read since the hello
        self._acknowledged = 0  # of them, those the broker was told of
        self._owner: Result | None = None  # a result whose buffers have not all come
        self._buffers: list[bytes] = []  # those that have

    # --- the program's side ---------------------------------------------------------------------

    def hello(self) -> None:
        """Begin a session; what was pending before has to be given up first."""
        self._read = self._acknowledged = 0
        self._outgoing.append(encode_message(Hello(0, self._client)))

    def goodbye(self) -> None:
        """End the session."""
        self._outgoing.append(encode_message(Goodbye()))

    def call(
        self,
        handle: Handle,
        node: str,
        params: tuple[bytes, Sequence[Buffer]],
        timeout_ms: float | None,
    ) -> int:
        """Open a call and return its request id.

        Raises:
            InvalidArgumentError: It is over the broker's limits.
        """
        body, buffers = params
        self._ids = request_id = self._ids + 1
        options = None
        if timeout_ms is not None or buffers:
            options = Options(timeout_ms=timeout_ms, buffers=len(buffers))
        frame = encode_message(Call(request_id, node, Raw(body), options))
        self._open(handle, request_id, frame, buffers)
        return request_id

    def chunk(self, handle: Handle, node: str, items: bytes, timeout_ms: float | None) -> int:
        """Open a chunk of a map and return its request id; errors as in `call`."""
        self._ids = request_id = self._ids + 1
        options = None if timeout_ms is None else Options(timeout_ms=timeout_ms)
        self._open(
            handle, request_id, encode_message(MapChunk(request_id, node, Raw(items), options)), ()
        )
        return request_id

    def ping(self, handle: Handle) -> int:
        """Open a ping and return its request id."""
        self._ids = request_id = self._ids + 1
        self._pending[request_id] = (handle, 0)
        self._outgoing.append(encode_message(Ping(request_id)))
        return request_id

    def cancel(self, request_id: int) -> Handle | None:
        """Cancel a request; its completion still comes, unless it was not sent yet.

        Returns:
            The handle of a request that was not sent: it has ended with this call.
        """
        if request_id in self._pending:
            self._outgoing.append(encode_message(Cancel(request_id)))
            return None
        for waiting_id, handle, _, _ in self._waiting:
            if waiting_id == request_id and request_id not in self._given_up:
                self._given_up.add(request_id)
                return handle
        return None

    # --- the wire's side ------------------------------------------------------------------------

    def outgoing(self) -> list[Buffer]:
        """Return the frames of the next message to send, empty when there is none.

        Small frames that follow each other are bundled.
        """
        if self._waiting:
            self._release()
        outgoing, self._outgoing = self._outgoing, []
        if len(outgoing) == 1 and isinstance(outgoing[0], bytes):
            return [outgoing[0]]
        frames: list[Buffer] = []
        plain: list[bytes] = []  # those that follow each other
        for one in outgoing:
            if isinstance(one, bytes) and len(one) <= BUNDLED_BYTES_MAX:
                plain.append(one)
                continue
            frames += _bundled(plain)
            plain = []
            frames += [one] if isinstance(one, bytes) else one
        return frames + _bundled(plain)

    @property
    def has_outgoing(self) -> bool:
        """Whether there is something to send, or may be now that replies were read."""
        return bool(self._outgoing or self._waiting)

    @property
    def is_full_or_alone(self) -> bool:
        """Whether a message is full, or the one request in it is all that is open."""
        return len(self._outgoing) >= BUNDLE_REQUESTS or len(self._pending) == 1

    def receive(self, frames: Sequence[bytes]) -> list[Completion[Handle]]:
        """Take in frames of the broker, in order, and return the requests they end.

        Where messages begin and end makes no difference: each frame tells how many are its buffers.

        Raises:
            ProtocolError: The broker sent what the protocol does not allow.
        """
        completions: list[Completion[Handle]] = []
        for frame in frames:
            if self._owner is not None:
                self._buffers.append(frame)
                if len(self._buffers) == self._owner.buffers:
                    self._complete(completions, self._owner, self._buffers)
                    self._owner, self._buffers = None, []
                continue
            reply = decode_reply(frame)
            if type(reply) is Result and not reply.buffers:  # as when one call is made at a time
                self._complete(completions, reply, ())
            elif isinstance(reply, ReplyBundle):
                for one in reply.messages:
                    self._take_in(completions, one)
            else:
                self._take_in(completions, reply)
        if self._read - self._acknowledged >= self.limits.grant_requests // 4:
            self._acknowledged = self._read
            self._outgoing.append(encode_message(Ack(self._read)))
        return completions

    def lost(self, why: str) -> list[Completion[Handle]]:
        """Give up all that is open: the connection broke.

        What was not sent yet is given up too, as ``not_started``; the caller may send it again.
        """
        completions = [
            Completion(handle, _lost(request_id, why, "maybe_executed"), ())
            for request_id, (handle, _) in self._pending.items()
        ]
        for request_id, handle, _, _ in self._waiting:
            if request_id not in self._given_up:
                reply = _lost(request_id, why, "not_started")
                completions.append(Completion(handle, reply, ()))
        self._pending.clear()
        self._pending_bytes = 0
        self._waiting.clear()
        self._given_up.clear()
        self._outgoing.clear()
        self._owner, self._buffers = None, []
        self._grant_requests = 0
        self.info = None
        return completions

    @property
    def has_waiting(self) -> bool:
        """Whether requests wait for the grant, or for a message that is not full."""
        return bool(self._waiting)

    @property
    def open_requests(self) -> int:
        """Number of requests that have not got their completion."""
        return len(self._pending) + len(self._waiting) - len(self._given_up)

    def check_invariants(self) -> None:
        """Check that the parts of the state agree; for tests."""
        assert self._pending_bytes == sum(size for _, size in self._pending.values())
        requests = [size for _, size in self._pending.values() if size]  # pings have none
        assert len(requests) <= self.limits.grant_requests
        assert self._given_up <= {waiting[0] for waiting in self._waiting}
        assert self._acknowledged <= self._read

    # --- inside ---------------------------------------------------------------------------------

    def _take_in(self, completions: list[Completion[Handle]], reply: BrokerMessage) -> None:
        if isinstance(reply, Result):
            if reply.buffers:
                self._owner = reply
            else:
                self._complete(completions, reply, ())
        elif isinstance(reply, (MapResult, Error)):
            self._complete(completions, reply, ())
        elif isinstance(reply, Pong):
            pending = self._pending.pop(reply.id, None) if type(reply.id) is int else None
            if pending is not None:
                completions.append(Completion(pending[0], reply, ()))
        elif isinstance(reply, Welcome):
            self._welcome(completions, reply)

    def _open(
        self, handle: Handle, request_id: int, frame: bytes, buffers: Sequence[Buffer]
    ) -> None:
        size = len(frame)
        outgoing: bytes | list[Buffer] = frame
        if buffers:
            size += sum(memoryview(buffer).nbytes for buffer in buffers)
            outgoing = [frame, *buffers]
        limits = self.limits
        if size > limits.request_bytes or (buffers and len(buffers) > limits.buffers):
            raise _too_large(size, len(buffers), limits)
        if not self._waiting and self._may_send(size):
            self._pending[request_id] = (handle, size)
            self._pending_bytes += size
            self._outgoing.append(outgoing)
        else:
            self._waiting.append((request_id, handle, outgoing, size))

    def _may_send(self, size: int) -> bool:
        return (
            len(self._pending) + self._read - self._acknowledged < self._grant_requests
            and self._pending_bytes + size <= self._grant_bytes
            and len(self._outgoing) < BUNDLE_REQUESTS
        )

    def _release(self) -> None:
        """Move requests from those that wait to those that are sent, as the grant allows."""
        waiting, pending = self._waiting, self._pending
        while waiting:
            request_id, handle, outgoing, size = waiting[0]
            if request_id in self._given_up:
                self._given_up.remove(request_id)
            elif self._may_send(size):
                pending[request_id] = (handle, size)
                self._pending_bytes += size
                self._outgoing.append(outgoing)
            else:
                return
            waiting.popleft()

    def _complete(
        self,
        completions: list[Completion[Handle]],
        reply: Result | MapResult | Error,
        buffers: Sequence[bytes],
    ) -> None:
        self._read += 1
        # An id that is none of ours, such as a text, is in there as little as one that has ended.
        pending = self._pending.pop(reply.id, None)  # type: ignore[arg-type]
        if pending is not None:
            handle, size = pending
            self._pending_bytes -= size
            completions.append(Completion(handle, reply, buffers))

    def _welcome(self, completions: list[Completion[Handle]], reply: Welcome) -> None:
        if reply.id is not None:
            self.info = reply.info
            self.limits = limits = reply.info.limits
            self._grant_requests, self._grant_bytes = limits.grant_requests, limits.grant_bytes
            self._read = self._acknowledged = 0  # what came before belongs to no session
            self._end_too_large(completions)
        elif self.info is not None:
            # It answers the probe of a new connection: the broker does not know us any more. The
            # first connection's comes before our hello is answered and means nothing.
            completions += self.lost("the connection to the broker was lost and made anew")
            self.goodbye()  # to what was sent before we knew: nobody waits for it any more
            self.hello()

    def _end_too_large(self, completions: list[Completion[Handle]]) -> None:
        """End what waits and is over limits that were not known when it was opened."""
        limits = self.limits
        for request_id, handle, outgoing, size in self._waiting:
            buffers = 0 if isinstance(outgoing, bytes) else len(outgoing) - 1
            if size <= limits.request_bytes and buffers <= limits.buffers:
                continue
            if request_id not in self._given_up:
                self._given_up.add(request_id)  # for the others' order it stays where it is
                error = _too_large(size, buffers, limits)
                details = msgspec.structs.replace(error.details, outcome="not_started")
                reply = Error(request_id, error.code, error.message, details)
                completions.append(Completion(handle, reply, ()))


def _bundled(frames: list[bytes]) -> list[Buffer]:
    """Make one frame of several; of one or none there is nothing to bundle."""
    return [bundle_requests(frames)] if len(frames) > 1 else [*frames]


def _lost(request_id: int, why: str, outcome: Outcome) -> Error:
    error = BrokerLostError(why)
    details = ErrorDetails(outcome=outcome, retryable=outcome == "not_started")
    return Error(request_id, error.code, why, details)


def _too_large(size: int, buffers: int, limits: Limits) -> PronghornError:
    if buffers > limits.buffers:
        message = f"the request has {buffers} buffers, the broker's limit is {limits.buffers}"
        return InvalidArgumentError(message, ErrorDetails(limit=limits.buffers))
    message = f"the request has {size} bytes, the broker's limit is {limits.request_bytes}"
    return InvalidArgumentError(message, ErrorDetails(limit=limits.request_bytes))
