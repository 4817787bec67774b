"""The ends of requests; those of requests that the broker does not end are made here. Pure.

Mirror: tests/client/test_completions.py.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    Outcome,
    PronghornError,
)
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import Error, MapResult, Pong, Result

from .waiting import WaitingRequest

Handle = TypeVar("Handle")

Reply = Result | MapResult | Error | Pong


class Completion(msgspec.Struct, Generic[Handle], frozen=True):
    """The one end of a request."""

    handle: Handle
    reply: Reply
    buffers: Sequence[bytes]


def unsent(
    request_id: int, waiting: WaitingRequest[Handle], error: PronghornError
) -> Completion[Handle]:
    """End a request that never left."""
    details = msgspec.structs.replace(error.details, outcome="not_started", node=waiting.node)
    reply = Error(request_id, error.code, error.message, details)
    return Completion(waiting.handle, reply, ())


def lost_reply(request_id: int, why: str, outcome: Outcome) -> Error:
    """Make the reply to a request whose connection broke."""
    error = BrokerLostError(why)
    details = ErrorDetails(outcome=outcome, retryable=outcome == "not_started")
    return Error(request_id, error.code, why, details)


def too_large(size: int, buffers: int, limits: Limits) -> PronghornError:
    """Make the error of a request that is over the broker's limits."""
    if buffers > limits.buffers:
        message = f"the request has {buffers} buffers, the broker's limit is {limits.buffers}"
        return InvalidArgumentError(message, ErrorDetails(limit=limits.buffers))
    message = f"the request has {size} bytes, the broker's limit is {limits.request_bytes}"
    return InvalidArgumentError(message, ErrorDetails(limit=limits.request_bytes))
