"""What is told of runs: their state, their events, their results in either language. Pure.

Mirror: tests/broker/test_run_replies.py.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from .journal.fold import RunState
from .journal.record import (
    Accepted,
    Advanced,
    AttemptLost,
    Ended,
    Record,
    Reopened,
    Started,
    TaskDone,
)
from .journal.rows import format_run_id
from .wire.codec import DECODE_ERRORS
from .wire.errors import ErrorDetails, ProtocolError, UnimplementedError
from .wire.limits import MIB
from .wire.link import CODEC_JSON, unwrap_json
from .wire.runs import RunEvent, RunInfo
from .wire.values import decode_value, encode_json

CONVERTED_BYTES_MAX: Final = MIB
"""Largest result that is told in the other language: the broker does nothing else meanwhile."""

Reply = tuple[Raw, Sequence[bytes]]
"""A value and its buffers."""


def info_of(state: RunState, secret: bytes) -> RunInfo:
    """Tell what is known of a run."""
    return RunInfo(
        id=format_run_id(state.run, secret),
        node=state.node,
        status=state.status,
        durability=state.durability,
        key=state.key,
        accepted_at_ns=state.accepted_at_ns,
        ended_at_ns=state.ended_at_ns,
        run_ns=state.run_ns,
        attempt=state.attempt,
        attempts_max=state.last_attempt,
        deaths=state.deaths,
        at_most_once=state.at_most_once,
        code=state.code,
        items=state.items,
        items_done=sum(count for _, count in state.ranges),
    )


def event_of(sequence: int, record: Record) -> RunEvent:
    """Tell what a record says has happened."""
    at_ns = record.at_ns
    match record:
        case Accepted():
            return RunEvent(seq=sequence, event="accepted", at_ns=at_ns)
        case Started(attempt=attempt):
            return RunEvent(seq=sequence, event="started", at_ns=at_ns, attempt=attempt)
        case AttemptLost(cause=cause):
            return RunEvent(seq=sequence, event="lost", at_ns=at_ns, cause=cause)
        case TaskDone(first=first, count=count):
            return RunEvent(seq=sequence, event="part", at_ns=at_ns, first=first, count=count)
        case Advanced(tasks=tasks):
            return RunEvent(seq=sequence, event="part", at_ns=at_ns, tasks=tasks)
        case Reopened():
            return RunEvent(seq=sequence, event="reopened", at_ns=at_ns)
        case Ended(status=status, failure=failure):
            code, message = (failure.code, failure.message) if failure else (None, None)
            return RunEvent(
                seq=sequence,
                event="ended",
                at_ns=at_ns,
                status=status,
                code=code,
                message=message,
            )


def reply_value(
    value: Raw, buffers: Sequence[bytes], *, codec: int, as_json: bool, node: str
) -> Reply:
    """Give the result of a run in the language of who asks.

    Args:
        value: As it is kept: with `CODEC_JSON` a msgpack ``bin``.
        buffers: Its buffers.
        codec: In which language it is kept.
        as_json: Whether JSON is asked for.
        node: Of the run, for errors.

    Raises:
        UnimplementedError: It would have to be converted, and is too large for that or can't be.
    """
    if codec == CODEC_JSON:
        text = unwrap_json(value)
        if as_json:
            return Raw(text), ()
        _check_size(len(text), node)
        return Raw(msgspec.msgpack.encode(msgspec.json.decode(text))), ()
    if not as_json:
        return value, buffers
    _check_size(len(value) + sum(map(len, buffers)), node)
    try:
        return Raw(encode_json(decode_value(value, buffers))), ()
    except (ProtocolError, TypeError, *DECODE_ERRORS) as error:
        raise _unconverted(node, f"can't be told in JSON: {error}") from error


def _check_size(size: int, node: str) -> None:
    if size > CONVERTED_BYTES_MAX:
        raise _unconverted(
            node,
            f"has {size} bytes, too much to be converted: ask for it in the language in which the "
            "run was started",
        )


def _unconverted(node: str, why: str) -> UnimplementedError:
    details = ErrorDetails(outcome="executed", node=node, limit=CONVERTED_BYTES_MAX)
    return UnimplementedError(f"{node}: the result {why}", details)
