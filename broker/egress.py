"""From `Send` commands to the messages for clients. Pure.

Small replies of a burst for one client are put into one frame where the client said that it can
read that; replies of a JSON-RPC batch are collected into one array.

Mirror: tests/broker/test_egress.py.
"""

from collections.abc import Sequence

import msgspec

from .events import Origin, Send
from .wire import jsonrpc
from .wire.codec import encode_message
from .wire.errors import ErrorDetails
from .wire.limits import KIB, Limits
from .wire.link import CODEC_JSON, Buffer
from .wire.messages import BrokerMessage, Error, Event, Part, Progress, bundle_replies

Frames = Sequence[Buffer]

_BUNDLED_BYTES_MAX = 4 * KIB  # of a reply that is bundled: to copy a larger one costs more
_BUNDLE_BYTES = 64 * KIB
_ORDERED = frozenset((Part, Progress, Event))


class _Batch(msgspec.Struct):
    """Replies of one JSON-RPC batch that have come so far."""

    missing: int
    size: int = 0
    replies: list[bytes] = []


def _together(frames: list[bytes]) -> Frames:
    return frames if len(frames) == 1 else [bundle_replies(frames)]


class Egress:
    """Turns commands into messages, each a list of frames without the routing id."""

    def __init__(self, limits: Limits) -> None:
        self._result_bytes = limits.result_bytes
        # (peer, number of the batch) -> its replies; a key is here iff some have come, not all
        self._batches: dict[tuple[bytes, int], _Batch] = {}

    def messages(self, peer: bytes, sends: Sequence[Send]) -> list[Frames]:
        """Make the messages for one client out of what a burst produced for it, in order."""
        messages: list[Frames] = []
        together: list[bytes] = []  # plain replies that share a frame
        size = 0  # bytes of `together`
        in_order = False  # whether a part or an event is among them, which nothing may overtake
        for send in sends:
            if send.origin is None:
                frame = encode_message(send.message)
                if not send.batched or send.buffers or len(frame) > _BUNDLED_BYTES_MAX:
                    if in_order:
                        messages.append(_together(together))
                        together, size, in_order = [], 0, False
                    messages.append([frame, *send.buffers])
                    continue
                together.append(frame)
                in_order = in_order or type(send.message) in _ORDERED
                size += len(frame)
                if size > _BUNDLE_BYTES:
                    messages.append(_together(together))
                    together, size, in_order = [], 0, False
            else:
                frames = self._enveloped(send, send.origin)
                if frames is not None:
                    messages.append(frames)
        if together:
            messages.append(_together(together))
        return messages

    def forget(self, peer: bytes) -> None:
        """Drop what was collected for a client that is gone."""
        for key in [key for key in self._batches if key[0] == peer]:
            del self._batches[key]

    def _enveloped(self, send: Send, origin: Origin) -> Frames | None:
        """Make the message for a request that came in an envelope or as JSON; `None` for none."""
        if origin.codec != CODEC_JSON:
            if not origin.silent:
                return [*origin.envelope, encode_message(send.message), *send.buffers]
            # A REQ socket waits for a message, whatever it holds.
            return [*origin.envelope, b""] if origin.envelope else None
        reply = b"" if origin.silent else jsonrpc.encode_reply(send.message)
        if origin.batch:
            complete = self._collect(send, origin, reply)
            if complete is None:
                return None
            reply = complete
        return [*origin.envelope, reply] if reply or origin.envelope else None

    def _collect(self, send: Send, origin: Origin, reply: bytes) -> bytes | None:
        """Add a reply to its batch; returns the array once it is complete."""
        key = (send.peer, origin.batch)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch(origin.batch_size)
        batch.missing -= 1
        if batch.size + len(reply) > self._result_bytes:
            reply = self._too_large(send.message)
        else:
            batch.size += len(reply)
        if reply:
            batch.replies.append(reply)
        if batch.missing:
            return None
        del self._batches[key]
        return jsonrpc.join_batch(batch.replies)

    def _too_large(self, message: BrokerMessage) -> bytes:
        """Encode what stands in the array for a reply that it has no room for."""
        limit = self._result_bytes
        text = f"the replies of the batch have more than {limit} bytes together, the limit"
        outcome = message.details.outcome if isinstance(message, Error) else "executed"
        details = ErrorDetails(outcome=outcome, limit=limit)
        return jsonrpc.encode_error(Error(message.id, "RESOURCE_EXHAUSTED", text, details))
