"""From the frames of a client's message to events for the core. Pure.

What can't be processed becomes a `Malformed` event with the error to answer; nothing raises. One
bad request in a message does not harm those beside it.

Mirror: tests/broker/test_ingress.py.
"""

from collections.abc import Sequence

from .events import Event, Malformed, Origin, Probed, Received, ReceivedJson
from .wire import jsonrpc
from .wire.codec import JSON_FIRST_BYTES, decode_request, peek_id, split_envelope
from .wire.errors import ErrorDetails, InvalidArgumentError, PronghornError, ProtocolError
from .wire.limits import Limits
from .wire.link import CODEC_JSON, CODEC_MSGPACK
from .wire.messages import Call, Error, RequestId

_PLAIN_BATCH = 0


class Ingress:
    """Parses messages; numbers the JSON-RPC batches so that replies can be collected."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._request_bytes = limits.request_bytes
        self._batches = 0  # number given to the last JSON-RPC batch

    def parse(self, peer: bytes, frames: Sequence[bytes]) -> list[Event]:
        """Parse one message of a client, its routing id taken off.

        Args:
            peer: Routing id of the client.
            frames: All frames of the message; at least one.
        """
        if len(frames) == 1:  # the hot path: one request, one frame
            frame = frames[0]
            if not frame:
                return [Probed(peer)]
            size = len(frame)
            if frame[0] not in JSON_FIRST_BYTES and size <= self._request_bytes:
                try:
                    message = decode_request(frame)
                except PronghornError as error:
                    return [_malformed(peer, error, peek_id(frame), None)]
                if type(message) is not Call or not (message.options and message.options.buffers):
                    return [Received(peer, message, size)]
        return self._parse_any(peer, frames)

    def _parse_any(self, peer: bytes, frames: Sequence[bytes]) -> list[Event]:
        try:
            envelope, rest = split_envelope(frames)
        except ProtocolError as error:
            return [_malformed(peer, error, None, None)]
        if not rest:
            if len(envelope) == 1:
                return [Probed(peer)]
            empty = ProtocolError("the message has an envelope and no request")
            return [_malformed(peer, empty, None, _origin(envelope, None))]
        if len(frames) > self._limits.frames:
            limit = self._limits.frames
            too_many = ProtocolError(
                f"a message has at most {limit} frames", ErrorDetails(limit=limit)
            )
            return [_malformed(peer, too_many, peek_id(rest[0]), _origin(envelope, None))]
        events: list[Event] = []
        position = 0
        while position < len(rest):
            frame = rest[position]
            position += 1
            if frame[0] in JSON_FIRST_BYTES:
                events += self._parse_json(peer, frame, envelope)
            else:
                event, used = self._parse_msgpack(peer, frame, rest, position, envelope)
                events.append(event)
                position += used
        return events

    def _parse_msgpack(
        self,
        peer: bytes,
        frame: bytes,
        frames: Sequence[bytes],
        position: int,
        envelope: tuple[bytes, ...],
    ) -> tuple[Event, int]:
        """Parse one request and the buffers behind it; returns how many frames those are."""
        id_ = peek_id(frame)
        origin = _origin(envelope, id_)
        try:
            self._check_size(len(frame))
            message = decode_request(frame)
        except PronghornError as error:
            return _malformed(peer, error, id_, origin), 0
        options = message.options if isinstance(message, Call) else None
        count = options.buffers if options else 0
        if not count:
            return Received(peer, message, len(frame), origin), 0
        buffers = frames[position : position + count]
        try:
            size = len(frame) + sum(map(len, buffers))
            self._check_buffers(count, len(buffers))
            self._check_size(size)
        except PronghornError as error:
            return _malformed(peer, error, id_, origin), max(0, min(count, len(buffers)))
        return Received(peer, message, size, origin, buffers), count

    def _check_size(self, size: int) -> None:
        limit = self._request_bytes
        if size > limit:
            raise InvalidArgumentError(
                f"the request has {size} bytes, the limit is {limit}", ErrorDetails(limit=limit)
            )

    def _check_buffers(self, count: int, present: int) -> None:
        limit = self._limits.buffers
        if not 0 <= count <= limit:
            raise ProtocolError(
                f"buffers is {count}; a request has 0 to {limit}", ErrorDetails(limit=limit)
            )
        if count != present:
            raise ProtocolError(f"the request has {count} buffers, {present} frames follow it")

    def _parse_json(self, peer: bytes, frame: bytes, envelope: tuple[bytes, ...]) -> list[Event]:
        try:
            self._check_size(len(frame))
        except PronghornError as error:
            return [_malformed(peer, error, None, Origin(envelope, CODEC_JSON, False, 0))]
        is_batch, requests = jsonrpc.decode(frame)
        batch = _PLAIN_BATCH
        if is_batch:
            self._batches += 1
            batch = self._batches
        events: list[Event] = []
        size = len(frame) // len(requests) + 1
        for request in requests:
            if isinstance(request, jsonrpc.BadRequest):
                origin = Origin(envelope, CODEC_JSON, False, batch, len(requests))
                events.append(Malformed(peer, jsonrpc.to_error(request), origin))
            else:
                origin = Origin(envelope, CODEC_JSON, request.is_notification, batch, len(requests))
                events.append(ReceivedJson(peer, request, size, origin))
        return events


def _origin(envelope: tuple[bytes, ...], id_: RequestId) -> Origin | None:
    return Origin(envelope, CODEC_MSGPACK, id_ is None, 0) if envelope else None


def _malformed(
    peer: bytes, error: PronghornError, id_: RequestId, origin: Origin | None
) -> Malformed:
    details = error.details
    if details.outcome is None:
        details = ErrorDetails(outcome="not_started", limit=details.limit)
    if origin is not None and origin.silent:  # the sender of what can't be read waits for a reply
        origin = Origin(origin.envelope, origin.codec, False, origin.batch)
    return Malformed(peer, Error(id_, error.code, error.message, details), origin)
