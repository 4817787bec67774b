"""A run's state as bytes and back, so that another process can go on with it.

What is made of the bytes behaves as what they were made of: the same events give the same
commands. Times become times left. Contexts are written once each, in the order of their depth,
however many branches share them. The bytes are for the same version of Pronghorn.

Mirror: tests/worker/flow/test_snapshot.py.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.values import NO_BUFFERS, encode_foreign, extension_hook

from .conductor import Conductor
from .context import Context
from .plan import Plan
from .state import RunState

FORMAT: Final = 1
_EXTENSIONS: Final = extension_hook(NO_BUFFERS)


class SnapshotError(ValueError):
    """The bytes are none of ours, or of a run of another workflow."""


class _ContextRecord(msgspec.Struct, frozen=True, array_like=True):
    parent: int | None
    changes: tuple[tuple[int, dict[str, Any]], ...]
    effect: dict[str, Any] | None  # None where it is what the only change says


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    format: int
    digest: str
    contexts: list[_ContextRecord]
    state: msgspec.Raw


def freeze(conductor: Conductor, now: float) -> bytes:
    """Write a run down. Costs as much as all its values are large."""
    contexts = _in_order_of_depth(_contexts(conductor.state))
    numbers = {id(context): number for number, context in enumerate(contexts)}
    records = [_record(context, numbers) for context in contexts]
    state = _shifted(conductor.state, -now)
    encoder = msgspec.msgpack.Encoder(enc_hook=partial(_encode, numbers))
    return encoder.encode(
        _Snapshot(FORMAT, conductor.plan.digest, records, msgspec.Raw(encoder.encode(state)))
    )


def thaw(data: bytes, plan: Plan, now: float) -> Conductor:
    """Take a run up again.

    Raises:
        SnapshotError: The bytes can't be read, or are of a run of another workflow.
    """
    try:
        snapshot = msgspec.msgpack.decode(data, type=_Snapshot, ext_hook=_EXTENSIONS)
        if snapshot.format != FORMAT:
            raise SnapshotError(f"a snapshot of format {snapshot.format}, this is {FORMAT}")
        if snapshot.digest != plan.digest:
            raise SnapshotError("a snapshot of a run of another workflow")
        contexts: list[Context] = []
        for record in snapshot.contexts:
            parent = None if record.parent is None else contexts[record.parent]
            effect = record.changes[0][1] if record.effect is None else record.effect
            contexts.append(Context(parent, record.changes, effect))
        state = msgspec.msgpack.decode(
            snapshot.state,
            type=RunState,
            dec_hook=lambda kind, number: contexts[number],
            ext_hook=_EXTENSIONS,
        )
    except (msgspec.MsgspecError, IndexError) as error:
        raise SnapshotError(f"not a snapshot: {error}") from error
    return Conductor(plan, _shifted(state, now))


def _encode(numbers: dict[int, int], value: Any) -> Any:
    """Encode what msgspec does not know: contexts by number, arrays as on the wire."""
    return numbers[id(value)] if isinstance(value, Context) else encode_foreign(value)


def _contexts(state: RunState) -> Iterable[Context]:
    for execution in state.executions.values():
        yield execution.context
    for arrivals in (state.ready, state.waiting):
        for arrival in arrivals.values():
            yield from arrival.contexts
    for terminal in state.terminals:
        yield terminal.context
    if state.last is not None:
        yield state.last.context
    for lost in state.lost.values():
        yield lost.context


def _in_order_of_depth(contexts: Iterable[Context]) -> list[Context]:
    """Collect contexts and all that they stand on, each before those above it."""
    found: dict[int, Context] = {}
    for context in contexts:
        each: Context | None = context
        while each is not None and id(each) not in found:
            found[id(each)] = each
            each = each.parent
    return sorted(found.values(), key=lambda context: context.depth)


def _record(context: Context, numbers: dict[int, int]) -> _ContextRecord:
    parent = None if context.parent is None else numbers[id(context.parent)]
    changes = tuple((number, dict(variables)) for number, variables in context.changes)
    plain = len(changes) == 1 and context.effect is context.changes[0][1]
    return _ContextRecord(parent, changes, None if plain else dict(context.effect))


def _shifted(state: RunState, by: float) -> RunState:
    """Give the state with all its times moved."""

    def moved(when: float | None) -> float | None:
        return None if when is None else when + by

    executions = {
        number: msgspec.structs.replace(each, due=moved(each.due), deadline=moved(each.deadline))
        for number, each in state.executions.items()
    }
    return msgspec.structs.replace(state, executions=executions, deadline=moved(state.deadline))
