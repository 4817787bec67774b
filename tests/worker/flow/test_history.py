"""Mirror of worker/flow/history.py: what is written is read again, and damage is told."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.errors import JournalError
from pronghorn.worker.flow.events import (
    Cancel,
    Ended,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    Pause,
    Rerun,
    Resume,
    Signal,
    Start,
    TakeSignal,
    TakeUp,
    Tick,
)
from pronghorn.worker.flow.history import (
    LARGE_BYTES,
    Begun,
    Defined,
    Moment,
    Told,
    Within,
    encode_workflow,
    read,
    write,
)
from pronghorn.worker.flow.validation import validate

LARGE = "x" * LARGE_BYTES
WORKFLOW = validate("tasks: {a: {action: add, input: {a: 1}, next: [{publish: [{x: 1}]}]}}")

EVENTS: list[Told] = [
    Ended(1, "succeeded", {"a": [1, b"\x00", None]}),
    Ended(2, "failed", {"code": "NODE_ERROR"}, "no"),
    Ended(3, "succeeded", LARGE),
    ItemsEnded(4, [ItemEnded(0, "succeeded", LARGE), ItemEnded(2, "failed", None, "no")]),
    ItemsGiven(5, [1, LARGE], is_last=False),
    ItemsGiven(5, [], is_last=True, status="failed", result={"code": "X"}, message="no"),
    Tick(),
    Pause(),
    Resume(),
    Cancel(stop_running=True),
    Signal("go", [LARGE]),
    Rerun(("a",)),
    Begun(7, None),
    Begun(8, 3),
    TakeUp(),
    TakeSignal("go"),
    Within(((1, None),), Start(), 3),
    Within(((1, 2), (3, None)), Ended(4, "succeeded", LARGE)),
    Within(((1, 2),), ItemsEnded(4, [ItemEnded(0, "succeeded", LARGE)])),
    Within(((1, 2),), Begun(8, 3)),
    Within(((1, 2),), Rerun(None)),
    Defined(0, WORKFLOW),
    Defined(1, validate({"tasks": {LARGE: None}})),
]


def again(*moments: tuple[float, Told], definition: bytes | None = None) -> list[Moment]:
    value, buffers = write(moments, definition)
    return read(Raw(value), [bytes(buffer) for buffer in buffers])


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_written_is_read_again(event: Any) -> None:
    assert again((5.25, event)) == [Moment(5.25, event)]


def test_many_are_read_in_order() -> None:
    moments = [(float(at), event) for at, event in enumerate(EVENTS)]
    assert [(each.at, each.what) for each in again(*moments)] == moments


@pytest.mark.parametrize("workflow", [WORKFLOW, validate({"tasks": {LARGE: None}})])
def test_a_run_begins_with_its_definition(workflow: Any) -> None:
    start = Start({"n": LARGE})
    (moment,) = again((1.0, start), definition=encode_workflow(workflow))
    assert moment == Moment(1.0, Start(), workflow)
    assert again((1.0, start)) == [Moment(1.0, Start())], "its input holds it"


def test_large_values_are_buffers_and_small_ones_none() -> None:
    same = [(0.0, Ended(number, "succeeded", LARGE)) for number in range(3)]
    value, buffers = write(same)
    assert len(value) < 100
    assert len(set(map(bytes, buffers))) == 1
    assert write([(0.0, Ended(1, "succeeded", "x" * 1000))])[1] == []


@pytest.mark.parametrize("value", [b"\xc1", b"\x91\x92\x63\x01", b"\x01", b""])
def test_what_can_not_be_read_is_told(value: bytes) -> None:
    with pytest.raises(JournalError, match="can't be read"):
        read(Raw(value), [])


def test_what_lies_within_what_lies_within_can_not_be_read() -> None:
    value = msgspec.msgpack.encode([[12, [[1, None]], [12, [[2, None]], [3, 1.0], -1], -1]])
    with pytest.raises(JournalError, match="can't be read"):
        read(Raw(value), [])


def test_a_buffer_that_is_missing_is_told() -> None:
    value, _ = write([(0.0, Ended(1, "succeeded", LARGE))])
    with pytest.raises(JournalError, match="can't be read"):
        read(Raw(value), [])
