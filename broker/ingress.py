"""From the frames of a client's message to events for the core. Pure.

What can't be processed becomes a `Malformed` event with the error to answer; nothing raises. One
bad request in a message does not harm those beside it.

Mirror: tests/broker/test_ingress.py.
"""

from collections.abc import Sequence

import msgspec

from .events import Event, Malformed, Origin, Probed, Received, ReceivedJson
from .wire import jsonrpc
from .wire.codec import (
    JSON_FIRST_BYTES,
    bundle_length,
    decode_bundle,
    decode_request,
    is_bundle,
    peek_buffers,
    peek_id,
    split_bundle,
    split_envelope,
)
from .wire.errors import ErrorDetails, InvalidArgumentError, PronghornError, ProtocolError
from .wire.limits import Limits
from .wire.link import CODEC_JSON, CODEC_MSGPACK, StreamError
from .wire.messages import (
    REQUEST_BUNDLE_START,
    Call,
    ClientMessage,
    Error,
    MapChunk,
    RequestId,
    Run,
)

_PLAIN_BATCH = 0
_WITH_OPTIONS = (Call, MapChunk, Run)


class Ingress:
    """Parses messages; numbers the JSON-RPC batches so that replies can be collected."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._request_bytes = limits.request_bytes
        self.buffers_max = limits.buffers
        self._batches = 0  # number given to the last JSON-RPC batch

    def parse(self, peer: bytes, frames: Sequence[bytes]) -> list[Event]:
        """Parse one message of a client, its routing id taken off.

        Args:
            peer: Routing id of the client.
            frames: All frames of the message; at least one.
        """
        if len(frames) == 1:  # the hot path: one request, one frame
            events = self.parse_frame(peer, frames[0])
            if isinstance(events, list):
                return events
        return self._parse_any(peer, frames)

    def parse_frame(self, peer: bytes, frame: bytes) -> list[Event] | int:
        """Parse a frame that has neither an envelope nor, as yet, buffers.

        Returns:
            Its events; or how many buffers it owns, without which it can't be parsed.
        """
        if not frame:
            return [Probed(peer)]
        size = len(frame)
        if frame[:2] == REQUEST_BUNDLE_START:  # `is_bundle`, without the call
            return self._parse_bundle(peer, frame, self._limits.frames)
        if frame[0] in JSON_FIRST_BYTES:
            return self._parse_json(peer, frame, ())
        try:
            message = decode_request(frame)
        except PronghornError as error:
            owned = peek_buffers(frame)
            return owned if owned > 0 else [_malformed(peer, error, peek_id(frame), None)]
        if type(message) is not Call or message.options is not None:
            owned = _buffers_of(message)
            if owned:
                return owned
        if size > self._request_bytes:
            return [self.refuse_size(peer, frame, size)]
        return [Received(peer, message, size)]

    def parse_request(self, peer: bytes, frame: bytes, buffers: Sequence[bytes]) -> Event:
        """Parse a request in msgpack that has no envelope, and all of its buffers."""
        return self._parse_msgpack(peer, frame, buffers, None)[0]

    def refuse_size(self, peer: bytes, frame: bytes, size: int) -> Event:
        """Refuse a request that has too many bytes in all, of which this is the first frame."""
        return _malformed(peer, self._too_long(size), peek_id(frame), None)

    def _parse_bundle(self, peer: bytes, frame: bytes, room: int) -> list[Event]:
        """Parse a bundle; where not all in it is well-formed, each request by itself."""
        length = bundle_length(frame)
        if length > room:
            limit = self._limits.frames
            too_many = ProtocolError(
                f"the bundle has {length} requests: a message has at most {limit} in all",
                ErrorDetails(limit=limit),
            )
            return [_malformed(peer, too_many, None, None)]
        if len(frame) <= self._request_bytes:
            try:
                messages = decode_bundle(frame)
            except PronghornError:
                messages = []
            if messages and not any(map(_buffers_of, messages)):
                return [Received(peer, message, _body_bytes(message)) for message in messages]
        try:
            parts = split_bundle(frame)
        except PronghornError as error:
            return [_malformed(peer, error, None, None)]
        if not parts:
            return [_malformed(peer, ProtocolError("the bundle is empty"), None, None)]
        return [self._parse_part(peer, part) for part in parts]

    def _parse_part(self, peer: bytes, frame: bytes) -> Event:
        if is_bundle(frame):
            return _malformed(peer, ProtocolError("a bundle holds no bundles"), None, None)
        return self.parse_request(peer, frame, ())

    def _parse_any(self, peer: bytes, frames: Sequence[bytes]) -> list[Event]:
        try:
            envelope, rest = split_envelope(frames)
        except ProtocolError as error:
            return [_malformed(peer, error, None, None)]
        origin = _origin(envelope)
        if not rest:
            empty = ProtocolError("the message has an envelope and no request")
            return [_malformed(peer, empty, None, origin)]
        if len(frames) > self._limits.frames:
            return [self._too_many(peer, rest[0], envelope)]
        events: list[Event] = []
        position = 0
        while position < len(rest):
            frame = rest[position]
            position += 1
            if not frame:
                number = len(envelope) + position - 1
                empty = ProtocolError(f"frame {number} is empty: requests and buffers never are")
                events.append(_malformed(peer, empty, None, origin))
            elif frame[0] in JSON_FIRST_BYTES:
                events += self._parse_json(peer, frame, envelope)
            elif is_bundle(frame) and origin is None:
                events += self._parse_bundle(peer, frame, self._limits.frames - len(events))
            else:
                event, used = self._parse_msgpack(peer, frame, rest[position:], origin)
                events.append(event)
                position += used
        return events

    def _too_many(self, peer: bytes, first: bytes, envelope: tuple[bytes, ...]) -> Event:
        """Refuse a whole message, in the language and with the id of its first request."""
        limit = self._limits.frames
        error = ProtocolError(f"a message has at most {limit} frames", ErrorDetails(limit=limit))
        if first and first[0] in JSON_FIRST_BYTES:
            origin = Origin(envelope, CODEC_JSON, False, 0)
            return _malformed(peer, error, jsonrpc.peek_id(first), origin)
        return _malformed(peer, error, peek_id(first), _origin(envelope))

    def _parse_msgpack(
        self, peer: bytes, frame: bytes, following: Sequence[bytes], origin: Origin | None
    ) -> tuple[Event, int]:
        """Parse one request and the buffers behind it; returns how many frames those are."""
        if is_bundle(frame):
            return _malformed(peer, ProtocolError("a bundle has no envelope"), None, origin), 0
        try:
            message = decode_request(frame)
        except PronghornError as error:
            owned = max(0, min(peek_buffers(frame), len(following)))
            return _malformed(peer, error, peek_id(frame), origin), owned
        count = _buffers_of(message)
        buffers = following[: max(0, count)]
        size = len(frame) + sum(map(len, buffers))
        try:
            self._check_size(size)
            if count:
                self._check_buffers(message, count, buffers)
        except PronghornError as error:
            return _malformed(peer, error, peek_id(frame), origin), len(buffers)
        if origin is not None and _wants_no_reply(message):
            origin = msgspec.structs.replace(origin, silent=True)
        return Received(peer, message, size, origin, buffers), len(buffers)

    def _check_size(self, size: int) -> None:
        if size > self._request_bytes:
            raise self._too_long(size)

    def _too_long(self, size: int) -> InvalidArgumentError:
        limit = self._request_bytes
        return InvalidArgumentError(
            f"the request has {size} bytes, the limit is {limit}", ErrorDetails(limit=limit)
        )

    def _check_buffers(self, message: ClientMessage, count: int, buffers: Sequence[bytes]) -> None:
        if not isinstance(message, Call | Run):
            raise ProtocolError(f"buffers is {count}, and only calls and runs have any")
        limit = self._limits.buffers
        if not 0 <= count <= limit:
            raise ProtocolError(
                f"buffers is {count}; a call has 0 to {limit}", ErrorDetails(limit=limit)
            )
        if count != len(buffers):
            raise ProtocolError(f"the request has {count} buffers, {len(buffers)} frames follow it")
        if b"" in buffers:
            raise ProtocolError(f"buffer {buffers.index(b'')} is empty: buffers never are")

    def _parse_json(self, peer: bytes, frame: bytes, envelope: tuple[bytes, ...]) -> list[Event]:
        try:
            self._check_size(len(frame))
        except PronghornError as error:
            origin = Origin(envelope, CODEC_JSON, False, 0)
            return [_malformed(peer, error, jsonrpc.peek_id(frame), origin)]
        is_batch, requests = jsonrpc.decode(frame)
        batch = _PLAIN_BATCH
        if is_batch:
            self._batches += 1
            batch = self._batches
        events: list[Event] = []
        size = len(frame) // len(requests)
        for request in requests:
            if isinstance(request, jsonrpc.BadRequest):
                origin = Origin(envelope, CODEC_JSON, False, batch, len(requests))
                events.append(Malformed(peer, jsonrpc.to_error(request), origin))
            else:
                origin = Origin(envelope, CODEC_JSON, request.is_notification, batch, len(requests))
                events.append(ReceivedJson(peer, request, size, origin))
        return events


class StreamParser:
    """Parses what comes in one stream, where each frame tells how many buffers follow it."""

    __slots__ = (
        "_bytes_max",
        "_frames_max",
        "_ingress",
        "_missing",
        "_peer",
        "_refused",
        "_request",
        "_size",
    )

    def __init__(self, ingress: Ingress, peer: bytes, limits: Limits) -> None:
        self._ingress = ingress
        self._peer = peer
        self._bytes_max = limits.request_bytes
        self._frames_max = limits.frames
        self._request: list[bytes] = []  # a frame and those of its buffers that have come
        self._missing = 0  # buffers that have not come
        self._size = 0  # bytes of the frame and all buffers that have
        self._refused = False  # whether it was answered, so that what has to come is passed over

    def parse(self, frames: Sequence[bytes]) -> Sequence[Event]:
        """Parse the frames that have come.

        Raises:
            StreamError: A request announces more buffers than are passed over.
        """
        if len(frames) == 1 and not self._missing:  # one call at a time
            events = self._ingress.parse_frame(self._peer, frames[0])
            if isinstance(events, list):
                return events
        together: list[Event] = []
        for frame in frames:
            together += self._take_buffer(frame) if self._missing else self._take_request(frame)
        return together

    def _take_request(self, frame: bytes) -> list[Event]:
        events = self._ingress.parse_frame(self._peer, frame)
        if isinstance(events, list):
            return events
        if events > self._frames_max:
            raise StreamError(f"a request announces {events} buffers")
        self._missing = max(0, events)
        self._refused = not 0 < events <= self._ingress.buffers_max
        if self._refused:
            return [self._ingress.parse_request(self._peer, frame, ())]
        self._request, self._size = [frame], len(frame)
        return []

    def _take_buffer(self, frame: bytes) -> list[Event]:
        self._missing -= 1
        if self._refused:
            return []
        self._size += len(frame)
        if self._size <= self._bytes_max:
            self._request.append(frame)
        else:
            del self._request[1:]  # it is refused anyway, once the rest has come
        if self._missing:
            return []
        request, *buffers = self._request
        self._request = []
        if self._size > self._bytes_max:
            return [self._ingress.refuse_size(self._peer, request, self._size)]
        return [self._ingress.parse_request(self._peer, request, buffers)]


def _origin(envelope: tuple[bytes, ...]) -> Origin | None:
    return Origin(envelope, CODEC_MSGPACK, False, 0) if envelope else None


def _buffers_of(message: ClientMessage) -> int:
    """Return how many buffers a request says it owns."""
    options = message.options if isinstance(message, _WITH_OPTIONS) else None
    return options.buffers if options else 0


def _body_bytes(message: ClientMessage) -> int:
    """Return what a request of a bundle counts with: a little less than its frame would have had.

    Never more, or a client that keeps count of its own frames would be refused within its grant.
    """
    if isinstance(message, Call | Run):
        return len(message.params)
    return len(message.items) if isinstance(message, MapChunk) else 0


def _wants_no_reply(message: ClientMessage) -> bool:
    """Whether a request is one that would have a reply, had it an id."""
    return isinstance(message, Call | MapChunk | Run) and message.id is None


def _malformed(
    peer: bytes, error: PronghornError, id_: RequestId, origin: Origin | None
) -> Malformed:
    details = msgspec.structs.replace(error.details, outcome="not_started")
    return Malformed(peer, Error(id_, error.code, error.message, details), origin)
