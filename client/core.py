"""One connection's state: what is pending, what waits for the grant, what is acknowledged. Pure.

Contract: `call` and `cancel` as the program asks, `receive` for each message that came; after each
of them the shell sends `outgoing` until it is empty, and hands each `Completion` to whoever waits.
`expire` before `outgoing` and when `next_due` has come; `lost` when the connection broke. `now` and
`due` are monotonic seconds. `Handle` is whatever the shell knows a waiting call by.

Rules: a request is sent only within the broker's grant and waits here otherwise, for as long as its
time allows; each gets exactly one completion; replies that were read are acknowledged before the
grant runs out.

Mirror: tests/client/test_core.py; joined with the other cores in tests/sim/.
"""

from collections.abc import Sequence
from math import inf
from typing import Generic, TypeVar

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.errors import CancelledError, DeadlineExceededError
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, Limits
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import (
    NO_OPTIONS,
    Ack,
    BrokerMessage,
    Call,
    Cancel,
    Error,
    Event,
    Goodbye,
    Hello,
    MapChunk,
    MapResult,
    Options,
    Part,
    Ping,
    Pong,
    Progress,
    ReplyBundle,
    RequestId,
    Result,
    Run,
    Times,
    Welcome,
    WelcomeInfo,
)
from pronghorn.broker.wire.messages import Credit as CreditMessage

from .bundling import bundled
from .completions import Completion, lost_reply, too_large, unsent
from .inbox import Credit, Inbox, News
from .stopwatch import Extras, Stopwatch
from .waiting import Waiting, WaitingRequest, hurried

Handle = TypeVar("Handle")

BUNDLE_REQUESTS = 128
"""Requests after which a message is full: the broker handles a message in one go."""


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
        self._waiting: Waiting[Handle] = Waiting()  # requests beyond the grant; in no other place
        # to be sent, in order: a frame, or a frame with its buffers
        self._outgoing: list[bytes | list[Buffer]] = []
        self._ids = 0  # the request id given out last
        self._read = 0  # terminal replies read since the hello
        self._acknowledged = 0  # of them, those the broker was told of
        # request id -> where its parts and events go; a key is here iff it asked for some and is
        # open
        self._inboxes: dict[int, Inbox] = {}
        # request id -> its stopwatch; a key is here iff it asked for its times and is open
        self._stopwatches: dict[int, Stopwatch] = {}
        self._owner: Result | Part | None = None  # a result or part whose buffers have not all come
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
        due: float | None = None,
        inbox: Inbox | None = None,
        extras: Extras | None = None,
    ) -> int:
        """Open a call and return its request id.

        Args:
            handle: Comes back with the completion.
            node: Name of the node.
            params: Encoded parameters and their buffers.
            timeout_ms: Time left for the call.
            due: When that time is over. Without it the time does not run while the call waits here.
            inbox: Gets its parts and events, as far as it asks for them, until its completion.
            extras: What else is asked of the broker.

        Raises:
            InvalidArgumentError: It is over the broker's limits.
        """
        body, buffers = params
        self._ids = request_id = self._ids + 1
        options = None
        if timeout_ms is not None or buffers or inbox is not None:
            options = _options(timeout_ms, len(buffers), inbox)
        if extras is not None:
            options = self._with_extras(request_id, options or NO_OPTIONS, extras)
        message: Call | Run = Call(request_id, node, Raw(body), options)
        if extras is not None and extras.starts:
            message = Run(request_id, node, Raw(body), options)
        self._open(handle, message, request_id, buffers, due)
        if inbox is not None:
            self._inboxes[request_id] = inbox
        return request_id

    def chunk(
        self,
        handle: Handle,
        node: str,
        items: bytes,
        timeout_ms: float | None,
        due: float | None = None,
        extras: Extras | None = None,
    ) -> int:
        """Open a chunk of a map and return its request id; all else as for `call`."""
        self._ids = request_id = self._ids + 1
        options = None if timeout_ms is None else _options(timeout_ms, 0)
        if extras is not None:
            options = self._with_extras(request_id, options or NO_OPTIONS, extras)
        self._open(handle, MapChunk(request_id, node, Raw(items), options), request_id, (), due)
        return request_id

    def credit(self, request_id: int, credit: Credit) -> None:
        """Let a call send more, unless it has ended."""
        if request_id in self._pending:
            self._outgoing.append(encode_message(CreditMessage(request_id, *credit)))

    def ping(self, handle: Handle) -> int:
        """Open a ping and return its request id."""
        self._ids = request_id = self._ids + 1
        self._pending[request_id] = (handle, 0)
        self._outgoing.append(encode_message(Ping(request_id)))
        return request_id

    def cancel(self, request_id: int) -> Completion[Handle] | None:
        """Cancel a request.

        Returns:
            The completion of one that was not sent, so ``not_started``; it has ended with this
            call. `None` for one that was sent, whose completion is still to come from the broker,
            and for one that has ended before.
        """
        if self._inboxes:
            self._inboxes.pop(request_id, None)
        if request_id in self._pending:
            self._outgoing.append(encode_message(Cancel(request_id)))
            return None
        waiting = self._waiting.pop(request_id)
        if waiting is None:
            return None
        self._stopwatches.pop(request_id, None)
        error = CancelledError(f"{waiting.node}: the call was cancelled")
        return unsent(request_id, waiting, error)

    def expire(self, now: float) -> list[Completion[Handle]]:
        """End the requests that still wait here and whose time is over: they are not sent."""
        completions: list[Completion[Handle]] = []
        for request_id, waiting in self._waiting.pop_overdue(now):
            why = f"{waiting.node}: the deadline has passed before it could be sent"
            self._stopwatches.pop(request_id, None)
            completions.append(unsent(request_id, waiting, DeadlineExceededError(why)))
        return completions

    def next_due(self) -> float:
        """Tell when `expire` will find something, `inf` if not as things stand."""
        return self._waiting.next_due()

    # --- the wire's side ------------------------------------------------------------------------

    def outgoing(self, now: float = -inf) -> list[Buffer]:
        """Return the frames of the next message to send, empty when there is none.

        Small frames that follow each other are bundled.

        Args:
            now: For what has waited with a deadline: the broker is told the time left by then.
        """
        if self._waiting.requests:
            self._release(now)
        outgoing, self._outgoing = self._outgoing, []
        if len(outgoing) == 1 and isinstance(outgoing[0], bytes):
            return [outgoing[0]]
        return bundled(outgoing)

    @property
    def has_outgoing(self) -> bool:
        """Whether there is something to send, or may be now that replies were read."""
        return bool(self._outgoing or self._waiting.requests)

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
                    if isinstance(self._owner, Part):
                        self._hear(self._owner, self._buffers)
                    else:
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
            Completion(handle, lost_reply(request_id, why, "maybe_executed"), ())
            for request_id, (handle, _) in self._pending.items()
        ]
        for request_id, waiting in self._waiting.requests.items():
            reply = lost_reply(request_id, why, "not_started")
            completions.append(Completion(waiting.handle, reply, ()))
        self._inboxes.clear()
        self._pending.clear()
        self._pending_bytes = 0
        self._waiting.clear()
        self._outgoing.clear()
        self._stopwatches.clear()
        self._owner, self._buffers = None, []
        self._grant_requests = 0
        self.info = None
        return completions

    @property
    def has_waiting(self) -> bool:
        """Whether requests wait for the grant, or for a message that is not full."""
        return bool(self._waiting.requests)

    @property
    def open_requests(self) -> int:
        """Number of requests that have not got their completion."""
        return len(self._pending) + len(self._waiting.requests)

    def check_invariants(self) -> None:
        """Check that the parts of the state agree; for tests."""
        assert self._pending_bytes == sum(size for _, size in self._pending.values())
        requests = [size for _, size in self._pending.values() if size]  # pings have none
        assert len(requests) <= self.limits.grant_requests
        self._waiting.check_invariants()
        assert not self._pending.keys() & self._waiting.requests.keys()
        assert self._stopwatches.keys() <= self._pending.keys() | self._waiting.requests.keys()
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
        elif isinstance(reply, (Part, Progress, Event)):
            if isinstance(reply, Part) and reply.buffers:
                self._owner = reply
            else:
                self._hear(reply, ())
        elif isinstance(reply, Pong):
            pending = self._pending.get(reply.id)  # type: ignore[arg-type]  # as in `_complete`
            if pending is not None and not pending[1]:  # a ping, which has no size
                del self._pending[reply.id]  # type: ignore[arg-type]
                completions.append(Completion(pending[0], reply, ()))
        elif isinstance(reply, Times):
            stopwatch = self._stopwatches.get(reply.id)  # type: ignore[arg-type]  # as in `_complete`
            if stopwatch is not None:
                stopwatch.told(reply)
        elif isinstance(reply, Welcome):
            self._welcome(completions, reply)

    def _open(
        self,
        handle: Handle,
        message: Call | MapChunk | Run,
        request_id: int,
        buffers: Sequence[Buffer],
        due: float | None,
    ) -> None:
        frame = encode_message(message)
        size = len(frame)
        if buffers:
            size += sum(memoryview(buffer).nbytes for buffer in buffers)
        limits = self.limits
        if size > limits.request_bytes or (buffers and len(buffers) > limits.buffers):
            self._stopwatches.pop(request_id, None)
            raise too_large(size, len(buffers), limits)
        if not self._waiting.requests and self._may_send(size):
            self._pending[request_id] = (handle, size)
            self._pending_bytes += size
            self._outgoing.append([frame, *buffers] if buffers else frame)
            if self._stopwatches:
                self._note_sent(request_id)
            return
        if due is None:
            waiting = WaitingRequest(handle, message.node, frame, buffers, size)
            self._waiting.requests[request_id] = waiting
        else:
            waiting = WaitingRequest(handle, message.node, b"", buffers, size, message, due)
            self._waiting.add(request_id, waiting)

    def _with_extras(self, request_id: int, options: Options, extras: Extras) -> Options:
        if extras.stopwatch is not None:
            self._stopwatches[request_id] = extras.stopwatch
        return msgspec.structs.replace(
            options,
            trace=extras.traceparent,
            times=extras.stopwatch is not None,
            priority=extras.priority,
            affinity=extras.affinity,
            durability=extras.durability,
            key=extras.key,
            items=extras.maps,
        )

    def _note_sent(self, request_id: int) -> None:
        stopwatch = self._stopwatches.get(request_id)
        if stopwatch is not None:
            stopwatch.sent()

    def _note_answered(self, request_id: RequestId) -> None:
        stopwatch = self._stopwatches.pop(request_id, None)  # type: ignore[arg-type]  # as above
        if stopwatch is not None:
            stopwatch.answered()

    def _may_send(self, size: int) -> bool:
        return (
            len(self._pending) + self._read - self._acknowledged < self._grant_requests
            and self._pending_bytes + size <= self._grant_bytes
            and len(self._outgoing) < BUNDLE_REQUESTS
        )

    def _release(self, now: float) -> None:
        """Move requests from those that wait to those that are sent, as the grant allows."""
        released: list[int] = []
        for request_id, waiting in self._waiting.requests.items():
            if not self._may_send(waiting.size):
                break
            frame, buffers = waiting.frame, waiting.buffers
            if waiting.message is not None:
                frame = hurried(waiting.message, (waiting.due - now) * 1000)
            self._pending[request_id] = (waiting.handle, waiting.size)
            self._pending_bytes += waiting.size
            self._outgoing.append([frame, *buffers] if buffers else frame)
            if self._stopwatches:
                self._note_sent(request_id)
            released.append(request_id)
        self._waiting.drop(released)

    def _hear(self, message: News, buffers: Sequence[bytes]) -> None:
        """Take in a part or an event; one of a call that was given up is dropped."""
        inbox = self._inboxes.get(message.id)  # type: ignore[arg-type]  # as in `_complete`
        if inbox is not None:
            inbox.put(message, buffers)

    def _complete(
        self,
        completions: list[Completion[Handle]],
        reply: Result | MapResult | Error,
        buffers: Sequence[bytes],
    ) -> None:
        self._read += 1
        if self._inboxes:
            self._inboxes.pop(reply.id, None)  # type: ignore[arg-type]  # as below
        # An id that is none of ours, such as a text, is in there as little as one that has ended.
        pending = self._pending.pop(reply.id, None)  # type: ignore[arg-type]
        if pending is not None:
            handle, size = pending
            self._pending_bytes -= size
            if self._stopwatches:
                self._note_answered(reply.id)
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
        for request_id, waiting in list(self._waiting.requests.items()):
            buffers = len(waiting.buffers)
            if waiting.size > limits.request_bytes or buffers > limits.buffers:
                self._waiting.pop(request_id)
                self._stopwatches.pop(request_id, None)
                error = too_large(waiting.size, buffers, limits)
                completions.append(unsent(request_id, waiting, error))


def _options(timeout_ms: float | None, buffers: int, inbox: Inbox | None = None) -> Options:
    # A float in any case: it may be encoded again with less time left, and must not grow by that.
    timeout_ms = None if timeout_ms is None else float(timeout_ms)
    if inbox is None:
        return Options(timeout_ms, buffers)
    return Options(timeout_ms, buffers, stream=inbox.stream, events=inbox.events)
