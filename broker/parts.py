"""What open calls send before their terminal replies: parts, progress, events; by credit. Pure.

A caller says with its call how much it takes, and says more as it goes on reading. The worker sends
no more than that, so what a slow reader leaves unread is bounded wherever it is. All is passed on
as it comes, in order and never decoded; numbers are given here, so that they have no gaps:

I7. Parts and events of a request are numbered from 0 without gaps; none follows its terminal reply.
I8. No more is sent than there is credit for.

Mirror: tests/broker/test_parts.py.
"""

from collections import deque

from .events import Send, WorkerSent
from .lifecycle import Lifecycle
from .placement import Worker
from .requests import Flow, Node, Request, Session
from .wire.errors import ErrorDetails, InvalidArgumentError, OverloadedError, PronghornError
from .wire.limits import COUNTED_PART_BYTES, Limits
from .wire.link import Emitted, MoreCredit, Progressed, Yielded
from .wire.messages import Credit, Event, Options, Part, Progress, RequestId

_RETRY_AFTER_MS = 50.0


class Parts:
    """The flows of all open requests."""

    def __init__(self, life: Lifecycle, limits: Limits) -> None:
        self._life = life
        self._limits = limits

    def open_flow(
        self, session: Session, id_: RequestId, node: Node, options: Options, *, chunk: bool
    ) -> Flow | PronghornError | None:
        """Make the flow that a request asks for, `None` if for none; or tell why it is refused."""
        if options.stream is None and not options.events:
            return None
        reason = _reason_against(id_, node, options, self._limits, chunk=chunk)
        if reason is not None:
            details = ErrorDetails(outcome="not_started", node=node.name)
            return InvalidArgumentError(f"{node.name}: {reason}", details)
        items, bytes_ = options.stream or (0, 0)
        flow = Flow(options.stream is not None, 0, 0, 0)
        if bytes_ is None:
            flow.sizes = deque()
            bytes_ = min(COUNTED_PART_BYTES, self._limits.grant_part_bytes)
        limit = self._add(session, flow, items, bytes_, options.events or 0)
        if limit is None:
            return flow
        details = ErrorDetails(
            outcome="not_started", retryable=True, retry_after_ms=_RETRY_AFTER_MS, limit=limit
        )
        why = f"this client's calls would have credit for more than {limit}, its grant"
        return OverloadedError(f"{node.name}: {why}", details)

    def on_credit(self, session: Session, message: Credit, now: float) -> None:
        """Take in more credit; a call whose caller has lost count of it is ended."""
        request = session.open.get(message.id)
        if request is None:  # it has ended, and its terminal reply is on its way
            return
        flow = request.flow
        items, bytes_, events = message.items, message.bytes or 0, message.events
        why = None
        if flow is None or ((items or bytes_) and not flow.takes_parts):
            why = "credit was given to a call that did not ask for parts or events"
        elif items and (message.bytes is None) != (flow.sizes is not None):
            who = "the broker" if flow.sizes is not None else "its caller"
            why = f"{who} counts the bytes of this call's parts, as it was begun"
        elif min(items, bytes_, events) < 0:
            why = f"credit of {items} parts, {bytes_} bytes and {events} events is negative"
        elif not (items or events):  # of which there could be any number on the way to a worker
            why = f"credit of {bytes_} bytes is for no part and no event"
        else:
            if flow.sizes is not None:
                bytes_ = _given_back(flow.sizes, items)
            limit = self._add(session, flow, items, bytes_, events)
            if limit is not None:
                why = f"the credit of this client's calls is more than {limit}, its grant"
        if why is not None:
            self._life.give_up(request, InvalidArgumentError, why, now)
        elif (worker := self._life.placement.workers.get(request.worker_id)) is not None:
            self._life.tell(worker, MoreCredit(request.token, items, bytes_, events))

    def on_yielded(self, worker: Worker, message: Yielded, event: WorkerSent) -> None:
        """Pass a part on. Guarded by ``scripts/bench streams``."""
        request = worker.held.get(message.token)
        if request is None or request.ended:
            return
        flow = request.flow
        if flow is None or flow.items <= 0 or flow.bytes <= 0:
            self._life.kill(worker, "it sent a part without credit (I8)", worker.progress_at)
            return
        buffers = event.buffers
        flow.items -= 1
        size = len(message.value) + (sum(map(len, buffers)) if buffers else 0)
        flow.bytes -= size
        if flow.sizes is not None:
            flow.sizes.append(size)
        seq, flow.seq = flow.seq, flow.seq + 1
        session = request.session
        part = Part(request.id, seq, message.value, message.buffers)
        self._life.commands.append(Send(session.peer, part, request.origin, buffers, session.known))

    def on_progressed(self, worker: Worker, message: Progressed, event: WorkerSent) -> None:
        """Pass on how far a node is."""
        request = self._emitting(worker, message.token)
        if request is not None:
            done, total, text = message.done, message.total, message.message
            self._send(request, Progress(request.id, done, total, text))

    def on_emitted(self, worker: Worker, message: Emitted, event: WorkerSent) -> None:
        """Pass an event on."""
        request = self._emitting(worker, message.token)
        if request is not None:
            assert request.flow is not None
            seq, request.flow.event_seq = request.flow.event_seq, request.flow.event_seq + 1
            self._send(request, Event(request.id, seq, message.name, message.value))

    def _emitting(self, worker: Worker, token: int) -> Request | None:
        """Find the request that an event is of, and take it off its credit."""
        request = worker.held.get(token)
        if request is None or request.ended:
            return None
        if request.flow is None or request.flow.events <= 0:
            self._life.kill(worker, "it sent an event without credit (I8)", worker.progress_at)
            return None
        request.flow.events -= 1
        return request

    def _send(self, request: Request, message: Progress | Event) -> None:
        session = request.session
        self._life.commands.append(Send(session.peer, message, request.origin, (), session.known))

    def _add(
        self, session: Session, flow: Flow, items: int, bytes_: int, events: int
    ) -> int | None:
        """Add credit, which counts with the session; the limit, and nothing done, if that is over.

        What counts is the most that the credit has been: what was sent and not read does too.
        """
        window = max(flow.window, flow.items + flow.events + items + events)
        window_bytes = max(flow.window_bytes, flow.bytes + bytes_)
        limits = self._limits
        if session.parts - flow.window + window > limits.grant_parts:
            return limits.grant_parts
        if session.part_bytes - flow.window_bytes + window_bytes > limits.grant_part_bytes:
            return limits.grant_part_bytes
        session.parts += window - flow.window
        session.part_bytes += window_bytes - flow.window_bytes
        flow.window, flow.window_bytes = window, window_bytes
        flow.items += items
        flow.bytes += bytes_
        flow.events += events
        return None


def _given_back(sizes: deque[int], items: int) -> int:
    """Take so many parts off those that were sent, and return how many bytes they had."""
    return sum(sizes.popleft() for _ in range(min(items, len(sizes))))


def _reason_against(
    id_: RequestId, node: Node, options: Options, limits: Limits, *, chunk: bool
) -> str | None:
    """Say why a request can't have the flow that it asks for."""
    if id_ is None:
        return "parts and events need an id to be sent to"
    if chunk:
        return "a chunk of a map sends neither parts nor events"
    if options.stream is not None and not node.streams:
        return "it is no generator and has no parts: call it without stream"
    asked = f"stream is {options.stream}, events {options.events}"
    items, bytes_ = options.stream or (0, 0)
    bytes_, events = bytes_ or 0, options.events or 0
    if min(items, bytes_, events) < 0:
        return f"{asked}: credit is never negative"
    if items + events > limits.grant_parts or bytes_ > limits.grant_part_bytes:
        most = f"{limits.grant_parts} parts and events, {limits.grant_part_bytes} bytes"
        return f"{asked}: a client's grant is {most}, for all of its calls"
    return None
