"""Runs as clients see them: the calls ``pronghorn.run.…``, and what they answer. Pure.

A run is started by a message `Run`, or by the call `StartRun`; its id is known to whoever started
it and can't be guessed. PROTOCOL.md, "Runs", is the specification.

Mirror: tests/broker/wire/test_runs.py.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import Raw

from .builtin import decode_asked, kinds_by_name
from .codec import DECODE_ERRORS
from .errors import ErrorDetails, InvalidArgumentError
from .messages import ItemFailure

KEY_BYTES_MAX: Final = 255
"""Of an idempotency key in UTF-8: an order number, a digest, an id of somebody else's; no text."""

ITEMS_MAX: Final = 100_000
"""Of a recorded map, which is accepted as a whole."""

RunStatus = Literal["open", "done", "failed", "cancelled", "interrupted", "poisoned"]
"""Whether a run is open, or how it has ended."""

_NIL: Final = Raw(b"\xc0")


class StartRun(msgspec.Struct, frozen=True, tag="pronghorn.run.start", forbid_unknown_fields=True):
    """Start a node; answered with `RunInfo` when that is kept.

    For those who can't send a message `Run`. Of options that stand here and in the header these
    count.

    Attributes:
        node: Name of the node.
        params: Its params, by name or by position.
        key: Idempotency key.
        durability: What is promised of its end.
    """

    node: str
    params: Raw = _NIL
    key: str | None = None
    durability: Literal["batched", "sync"] | None = None


class AskStatus(msgspec.Struct, frozen=True, tag="pronghorn.run.status"):
    """Tell what is known of a run; answered with `RunInfo`."""

    id: str


class AskResult(msgspec.Struct, frozen=True, tag="pronghorn.run.result"):
    """Wait for the end of a run; answered with its result, or with the error that it ended with."""

    id: str


class AskEvents(msgspec.Struct, frozen=True, tag="pronghorn.run.events"):
    """Tell what has happened to a run; answered with `RunEvents`.

    Attributes:
        id: Of the run.
        from_seq: Number of the first event that is wanted.
        wait: Whether to answer only when there is one, or when the run has ended.
    """

    id: str
    from_seq: int = 0
    wait: bool = True


class AskItems(msgspec.Struct, frozen=True, tag="pronghorn.run.items"):
    """Give results of a map's items; answered with `RunItems`.

    Attributes:
        id: Of the run.
        from_seq: Number of the first range that is wanted.
        wait: Whether to answer only when there is one, or when the run has ended.
    """

    id: str
    from_seq: int = 0
    wait: bool = True


class CancelRun(msgspec.Struct, frozen=True, tag="pronghorn.run.cancel"):
    """Cancel a run; answered with `RunInfo` when its end is kept. One that has ended stays so."""

    id: str


class RetryRun(msgspec.Struct, frozen=True, tag="pronghorn.run.retry"):
    """Try a run again that ended without a result; answered with `RunInfo` when that is kept."""

    id: str


OfRun = AskStatus | AskResult | AskEvents | AskItems | CancelRun | RetryRun

RUN_CALLS: Final[Mapping[str, type[OfRun]]] = kinds_by_name(
    AskStatus, AskResult, AskEvents, AskItems, CancelRun, RetryRun
)
"""Name of the call -> what it asks for; `START` is another one."""

START: Final = "pronghorn.run.start"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run.

    Attributes:
        id: Its id; whoever knows it, and may use the broker, may ask for it and cancel it.
        node: Full name of its node.
        status: Whether it is open, or how it has ended.
        durability: What is promised of its end.
        key: Idempotency key.
        accepted_at_ns: When it was accepted, nanoseconds since 1970.
        ended_at_ns: When it has ended; 0 while it is open.
        run_ns: Run time of its node alone, in the attempt that has ended it.
        attempt: Number of its latest attempt, from 1.
        attempts_max: The attempt after which no other follows.
        deaths: Workers that have died of it since it was accepted, or tried again on demand.
        at_most_once: Whether it is never begun twice.
        code: Code of the error that it has ended with, "" if with none.
        items: Of a map, how many it has; `None` for a call.
        items_done: How many of them have ended, with a result or a failure.
    """

    id: str
    node: str
    status: RunStatus
    durability: Literal["batched", "sync"]
    key: str | None
    accepted_at_ns: int
    ended_at_ns: int
    run_ns: int
    attempt: int
    attempts_max: int
    deaths: int
    at_most_once: bool
    code: str
    items: int | None = None
    items_done: int = 0


class RunEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that has happened to a run, and is kept.

    Attributes:
        seq: Its number: later ones have higher numbers, which don't follow each other.
        event: ``accepted``, ``started`` (another attempt, or any of a run that is never begun
            twice), ``lost`` (the attempt's worker died), ``part`` (a range of a map's items has
            ended, or what is done for a workflow), ``ended`` or ``reopened`` (to be tried again, on
            demand).
        at_ns: When, nanoseconds since 1970.
        attempt: Number of the attempt that has started.
        cause: How the worker ended that was lost.
        first: Index of the first item of the range.
        count: How many items it has.
        status: How the run has ended.
        code: Code of the error that it has ended with.
        message: Message of that error.
        tasks: Name and status of each task of a workflow that has ended.
    """

    seq: int
    event: Literal["accepted", "started", "lost", "part", "ended", "reopened"]
    at_ns: int
    attempt: int | None = None
    cause: str | None = None
    first: int | None = None
    count: int | None = None
    status: RunStatus | None = None
    code: str | None = None
    message: str | None = None
    tasks: tuple[tuple[str, str], ...] = ()


class RunEvents(msgspec.Struct, frozen=True):
    """Events of a run, in order; `ended` tells that there are no more as things stand."""

    events: tuple[RunEvent, ...]
    ended: bool


class RunPart(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a range of a map's items.

    Attributes:
        seq: Its number, as that of an event.
        first: Index of the first item.
        values: Array of their results, nil where `failures` has the item.
        failures: Of items, with indexes within the range.
    """

    seq: int
    first: int
    values: Raw
    failures: tuple[ItemFailure, ...] = ()


class RunItems(msgspec.Struct, frozen=True):
    """Ranges of a map, in the order in which they have ended.

    Attributes:
        parts: Some of them.
        items: How many items the map has.
        ended: Whether there are no more as things stand.
    """

    parts: tuple[RunPart, ...]
    items: int
    ended: bool


def decode_start(params: Raw, *, as_json: bool) -> StartRun:
    """Decode the params of a call `START`, which are given by name.

    Raises:
        InvalidArgumentError: They are not what it takes; names the field.
    """
    codec = msgspec.json if as_json else msgspec.msgpack
    try:
        # The tag is not among the params, so it is no use to decode the struct itself.
        given = codec.decode(params, type=dict[str, Raw])
        fields = {
            name: raw if name == "params" else codec.decode(raw) for name, raw in given.items()
        }
        raw = fields.pop("params", _NIL)
        start = msgspec.convert({"type": START, **fields}, StartRun)
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"{START}: {error}", ErrorDetails(node=START)) from error
    return msgspec.structs.replace(start, params=raw)


def decode_of_run(name: str, params: Raw, *, as_json: bool) -> OfRun:
    """Decode the params of a call about a run, by name or by position.

    Raises:
        InvalidArgumentError: They are not what it takes; names the field.
    """
    return decode_asked(name, RUN_CALLS[name], params, as_json=as_json)
