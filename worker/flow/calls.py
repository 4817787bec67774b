"""Calls a node in this process for a task: parameters in, an outcome with a plain result out.

Parameters and results go through msgpack, as on the way to a worker. So a node gets values of its
own, whatever shares them in the context; its types are checked; and what it gives back is of the
types that the wire has.

Mirror: tests/worker/flow/test_calls.py.
"""

import os
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    CancelledError,
    DeadlineExceededError,
    NodeError,
    PronghornError,
    WorkerLostError,
)
from pronghorn.broker.wire.values import decode_value, encode_inline

from ..context import Caller, Context
from ..dispatch import Entry
from ..loops import outside_loop
from .events import ItemEnded, ItemToRun, Outcome
from .measure import INTEGER_MAX, INTEGER_MIN
from .sharing import LEAST_ALONE_BYTES, Place, Sharing

_EMPTY: Final = b"\x80"
_SAME: Final = frozenset({str, float, bool, type(None)})

_STATUSES: Final[Mapping[str, Outcome]] = {
    DeadlineExceededError.code: "timeout",
    CancelledError.code: "canceled",
    WorkerLostError.code: "abandoned",
    BrokerLostError.code: "abandoned",
}


class Called(NamedTuple):
    """How a call has ended.

    Attributes:
        result: What the node gave; for a failed call a mapping with code, message and what else is
            known, so that ``result().message`` can be published.
        message: Why it failed.
    """

    status: Outcome
    result: Any
    message: str = ""


def call(
    entry: Entry,
    given: dict[str, Any] | None,
    context: Context | None,
    sharing: Sharing | None = None,
) -> Called:
    """Call a ``def`` node. Guarded by ``scripts/bench workflow``.

    Args:
        entry: The node.
        given: Its parameters by name.
        context: For a node that asks for one.
        sharing: Has the large values of its run.

    Raises:
        KeyboardInterrupt: Ctrl-C, which is for the whole program.
    """
    try:
        params = _params(entry, given, sharing)
        if entry.streams:
            extra = () if context is None else (context,)
            return _succeeded(entry, outside_loop(lambda: list(entry.invoke(params, *extra))))
        if context is None:
            value = outside_loop(entry.invoke, params)
        else:
            value = outside_loop(entry.invoke, params, context)
        return _succeeded(entry, value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # users' code raises what it likes, `SystemExit` too
        return failed(entry, error)


def call_items(
    entry: Entry,
    items: Sequence[ItemToRun],
    begin: int,
    until: float,
    sharing: Sharing | None = None,
) -> list[ItemEnded]:
    """Call a ``def`` node that asks for no `Context` for items, in order.

    Stops at an item with another action than that at `begin`, and when `time.monotonic` has passed
    `until`, after at least one; the rest is to be asked for again. Guarded by ``scripts/bench
    workflow``.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    first, last = items[begin].input, items[-1].input
    if sharing is None or first is None or last is None:
        return outside_loop(_call_items, entry, items, begin, until, None, ())
    if begin == len(items) - 1:
        places = sharing.known(first, away=False)
    else:
        places = sharing.common(first, last, away=False)
    try:
        return outside_loop(_call_items, entry, items, begin, until, sharing, places)
    finally:
        sharing.release(places)


def _call_items(
    entry: Entry,
    items: Sequence[ItemToRun],
    begin: int,
    until: float,
    sharing: Sharing | None,
    places: Sequence[Place],
) -> list[ItemEnded]:
    ended: list[ItemEnded] = []
    action = items[begin].action
    for index in range(begin, len(items)):
        item = items[index]
        if item.action != action:
            break
        try:
            if places and item.input:
                assert sharing is not None, "it knows the places"
                params = sharing.decode(entry, item.input, places)
            else:
                params = entry.decode(encode_inline(item.input) if item.input else _EMPTY)
            called = _succeeded(entry, entry.invoke(params))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as in `call`
            called = failed(entry, error)
        ended.append(ItemEnded(item.index, *called))
        if monotonic() > until:
            break
    return ended


async def call_async(
    entry: Entry,
    given: dict[str, Any] | None,
    context: Context | None,
    sharing: Sharing | None = None,
) -> Called:
    """Call an ``async def`` node; cancelling goes through.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        asyncio.CancelledError: Who waits for it has cancelled it.
    """
    try:
        params = _params(entry, given, sharing)
        invoked = entry.invoke(params) if context is None else entry.invoke(params, context)
        value = [part async for part in invoked] if entry.streams else await invoked
        return _succeeded(entry, value)
    except Exception as error:
        return failed(entry, error)
    except SystemExit as error:
        return failed(entry, error)


def context_of(
    entry: Entry, execution: int, caller: Caller | None, within: Context | None
) -> Context | None:
    """Make the `Context` that a node asks for, None for one that does not.

    Args:
        entry: The node.
        execution: Names its call.
        caller: Makes the calls of others.
        within: The call that the run is made for, if it is.
    """
    if not entry.takes_context:
        return None
    if within is None:
        return Context(
            request_id=str(execution), node=entry.name, worker_id=os.getpid(), caller=caller
        )
    return Context(
        request_id=within.request_id,
        node=entry.name,
        worker_id=within.worker_id,
        deadline=within.deadline,
        token=within.token,
        depth=within.depth,
        caller=caller,
        within=within,
        traceparent=within.traceparent,
    )


def failed(entry: Entry, error: BaseException) -> Called:
    """Make the outcome of an exception."""
    known = error if isinstance(error, PronghornError) else entry.node_error(error)
    return failed_by(known)


def failed_by(error: PronghornError) -> Called:
    """Make the outcome of an error of ours."""
    details = msgspec.to_builtins(error.details)
    details.pop("traceback", None)  # of no use to a workflow, and large
    result = {"code": error.code, "message": error.message, **details}
    status = _STATUSES.get(error.code, "failed")
    if isinstance(error, NodeError):  # whatever the node has called itself
        status = "failed"
    return Called(status, result, error.message)


def normalized(entry: Entry, value: Any) -> Any:
    """Give what a node gives here with the types that it would have from a worker.

    Raises:
        PronghornError: It can't be encoded.
    """
    body, failures = entry.encode_items([value])
    if failures:
        raise failures[0][1]
    return decode_value(body)[0]


def _params(entry: Entry, given: dict[str, Any] | None, sharing: Sharing | None) -> Any:
    if not given:
        return entry.decode(_EMPTY)
    if sharing is not None and sharing.is_used:
        return sharing.params(entry, given)
    raw = encode_inline(given)
    if len(raw) >= LEAST_ALONE_BYTES and sharing is not None:
        return sharing.params(entry, given, raw)
    return entry.decode(raw)


def _succeeded(entry: Entry, value: Any) -> Called:
    kind = type(value)
    if kind in _SAME or (kind is int and INTEGER_MIN <= value <= INTEGER_MAX):
        return Called("succeeded", value)
    body, failures = entry.encode_items([value])
    if failures:
        return failed_by(failures[0][1])
    return Called("succeeded", decode_value(body)[0])
