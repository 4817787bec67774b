"""What a recorded run has taken in, as bytes and back: enough to bring a conductor to where it was.

A conductor does the same again if it is told the same at the same times. So what is recorded is
what it was told: each end of an action with its result, each order, each timer. Pure.

A workflow that is called for a task has a conductor of its own. What that is told lies within the
history of the run, with the path that leads to it.

Large values are buffers of their own, which a journal keeps once for each content. Times are
seconds since 1970. Who takes a run up may be of a later version than who began it: the kinds below
keep their meaning, and so does what a conductor does when it is told them. Histories of finished
runs are kept as golden files for that.

Mirrors: tests/worker/flow/test_history.py, tests/worker/flow/test_histories.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import JournalError
from pronghorn.broker.wire.values import Buffer, decode_value, encode_inline

from .events import (
    Cancel,
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    Outcome,
    Pause,
    Rerun,
    Resume,
    Signal,
    Start,
    TakeSignal,
    TakeUp,
    Tick,
)
from .model import Workflow

LARGE_BYTES: Final = 1024
"""From so many on a value is a buffer."""

_NONE: Final = -1  # stands for no buffer, and no definition
_NIL: Final = Raw(b"\xc0")
_SMALL: Final = frozenset({int, float, bool, type(None)})


class Begun(NamedTuple):
    """What must not run twice was begun: an execution, or one of its items."""

    execution: int
    item: int | None


class Reopened(NamedTuple):
    """The run had ended, and somebody wants it to go on."""


Place = tuple[int, int | None]
"""Number of an execution, and of the item of it; None if it has none."""


class Within(NamedTuple):
    """What the conductor of a workflow within the run was told.

    Attributes:
        path: The places that lead to it: of the run, of the workflow that runs there, and so on.
        what: As of the run itself.
        definition: With `Start`: the number of the definition, see `Defined`.
    """

    path: tuple[Place, ...]
    what: Event | Begun | Reopened
    definition: int = _NONE


class Defined(NamedTuple):
    """A definition is that of workflows within the run; it is written once for all of them."""

    number: int
    workflow: Workflow


Told = Event | Begun | Within | Defined
"""What is written."""


class Moment(NamedTuple):
    """Something that a run has come through.

    Attributes:
        at: When.
        what: What its conductor was told; of `Start` not the input, which is the run's own.
        workflow: With `Start`: the definition, if the run's input does not hold it.
    """

    at: float
    what: Told | Reopened
    workflow: Workflow | None = None


class _Start(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    at: float
    value: Raw  # the definition, nil if there is none
    buffer: int


class _Ended(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    at: float
    execution: int
    status: Outcome
    message: str
    value: Raw  # nil where it is a buffer
    buffer: int  # its number, or `_NONE`


class _Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    index: int
    status: Outcome
    message: str
    value: Raw
    buffer: int


class _Items(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    at: float
    execution: int
    items: list[_Item]


class _Tick(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    at: float


class _Pause(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    at: float


class _Resume(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    at: float


class _Cancel(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    at: float
    stop_running: bool


class _Signal(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    at: float
    name: str
    value: Raw
    buffer: int


class _Rerun(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    at: float
    tasks: tuple[str, ...] | None


class _Begun(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    at: float
    execution: int
    item: int | None


class _TakeUp(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    at: float


class _Given(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    at: float
    execution: int
    is_last: bool
    status: Outcome
    message: str
    value: Raw  # of [values, result]
    buffer: int


class _TakeSignal(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    at: float
    name: str


_OfOne = (
    _Start
    | _Ended
    | _Items
    | _Tick
    | _Pause
    | _Resume
    | _Cancel
    | _Signal
    | _Rerun
    | _Begun
    | _TakeUp
    | _Given
    | _TakeSignal
)


class _Within(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    path: tuple[Place, ...]
    entry: _OfOne
    definition: int


class _Defined(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    at: float
    number: int
    value: Raw
    buffer: int


_Entry = _OfOne | _Within | _Defined

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_entries: Final = msgspec.msgpack.Decoder(list[_Entry]).decode
_decode_workflow: Final = msgspec.msgpack.Decoder(Workflow).decode


def encode_workflow(workflow: Workflow) -> bytes:
    """Write a definition down, for `write`."""
    return _encode(workflow)


def write(
    moments: Iterable[tuple[float, Told]], definition: bytes | None = None
) -> tuple[bytes, list[Buffer]]:
    """Write down what a conductor was told.

    Args:
        moments: When, and what.
        definition: What is written with `Start`.

    Returns:
        An array, and the buffers that it refers to.
    """
    buffers: list[Buffer] = []
    return _encode([_entry(at, what, definition, buffers) for at, what in moments]), buffers


def read(value: Raw, buffers: Sequence[Buffer]) -> list[Moment]:
    """Read what `write` has written.

    Raises:
        JournalError: It can't be read.
    """
    try:
        return [_moment(entry, buffers) for entry in _decode_entries(value)]
    except (IndexError, *DECODE_ERRORS) as error:
        raise JournalError(f"what was recorded of the run can't be read: {error}") from error


def _entry(at: float, what: Told, definition: bytes | None, out: list[Buffer]) -> _Entry:
    match what:
        case Ended():
            value, number = _put(what.result, out)
            return _Ended(at, what.execution, what.status, what.message, value, number)
        case ItemsEnded():
            return _Items(at, what.execution, [_item(each, out) for each in what.items])
        case ItemsGiven():
            value, number = _put([what.values, what.result], out)
            return _Given(
                at, what.execution, what.is_last, what.status, what.message, value, number
            )
        case Tick():
            return _Tick(at)
        case Start():
            value, number = (_NIL, _NONE) if definition is None else _put_bytes(definition, out)
            return _Start(at, value, number)
        case Begun():
            return _Begun(at, what.execution, what.item)
        case TakeUp():
            return _TakeUp(at)
        case Pause():
            return _Pause(at)
        case Resume():
            return _Resume(at)
        case Cancel():
            return _Cancel(at, what.stop_running)
        case Signal():
            value, number = _put(what.value, out)
            return _Signal(at, what.name, value, number)
        case Rerun():
            return _Rerun(at, what.tasks)
        case TakeSignal():
            return _TakeSignal(at, what.name)
        case Within():
            assert not isinstance(what.what, Reopened), "nobody writes that"
            entry = _entry(at, what.what, None, out)
            assert not isinstance(entry, _Within | _Defined), "what is within lies in no other"
            return _Within(what.path, entry, what.definition)
        case Defined():
            return _Defined(at, what.number, *_put_bytes(encode_workflow(what.workflow), out))


def _item(item: ItemEnded, out: list[Buffer]) -> _Item:
    value, number = _put(item.result, out)
    return _Item(item.index, item.status, item.message, value, number)


def _put(value: Any, out: list[Buffer]) -> tuple[Raw, int]:
    encoded = encode_inline(value)
    if type(value) in _SMALL or len(encoded) < LARGE_BYTES:
        return Raw(encoded), _NONE
    return _put_bytes(encoded, out)


def _put_bytes(encoded: bytes, out: list[Buffer]) -> tuple[Raw, int]:
    if len(encoded) < LARGE_BYTES:
        return Raw(encoded), _NONE
    out.append(encoded)
    return _NIL, len(out) - 1


def _moment(entry: _Entry, buffers: Sequence[Buffer]) -> Moment:
    match entry:
        case _Ended():
            result = _value(entry.value, entry.buffer, buffers)
            ended = Ended(entry.execution, entry.status, result, entry.message)
            return Moment(entry.at, ended)
        case _Items():
            items = [
                ItemEnded(
                    each.index,
                    each.status,
                    _value(each.value, each.buffer, buffers),
                    each.message,
                )
                for each in entry.items
            ]
            return Moment(entry.at, ItemsEnded(entry.execution, items))
        case _Given():
            values, result = _value(entry.value, entry.buffer, buffers)
            given = ItemsGiven(
                entry.execution, values, entry.is_last, entry.status, result, entry.message
            )
            return Moment(entry.at, given)
        case _Start():
            encoded = _encoded(entry.value, entry.buffer, buffers)
            begun_with = None if bytes(encoded) == bytes(_NIL) else _decode_workflow(encoded)
            return Moment(entry.at, Start(), begun_with)
        case _Signal():
            value = _value(entry.value, entry.buffer, buffers)
            return Moment(entry.at, Signal(entry.name, value))
        case _Within():
            at, what, _ = _moment(entry.entry, buffers)
            assert not isinstance(what, Within | Defined), "what is within lies in no other"
            return Moment(at, Within(entry.path, what, entry.definition))
        case _Defined():
            workflow = _decode_workflow(_encoded(entry.value, entry.buffer, buffers))
            return Moment(entry.at, Defined(entry.number, workflow))
        case _:
            return Moment(entry.at, _plain(entry))


def _plain(
    entry: _Tick | _Pause | _Resume | _Cancel | _Rerun | _Begun | _TakeUp | _TakeSignal,
) -> Event | Begun:
    match entry:
        case _Tick():
            return Tick()
        case _Pause():
            return Pause()
        case _Resume():
            return Resume()
        case _Cancel():
            return Cancel(stop_running=entry.stop_running)
        case _Rerun():
            return Rerun(entry.tasks)
        case _Begun():
            return Begun(entry.execution, entry.item)
        case _TakeUp():
            return TakeUp()
        case _TakeSignal():
            return TakeSignal(entry.name)


def _value(value: Raw, number: int, buffers: Sequence[Buffer]) -> Any:
    return decode_value(_encoded(value, number, buffers))


def _encoded(value: Raw, number: int, buffers: Sequence[Buffer]) -> Buffer:
    return value if number == _NONE else buffers[number]
