"""Mirror of broker/journal/messages.py."""

from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_records import FIRST, SECRET, Story, accepted, value

from pronghorn.broker.journal.messages import (
    AskStatistics,
    Broken,
    Committed,
    Failed,
    FindKey,
    FindRun,
    FoundEvents,
    FoundHistory,
    FoundKeys,
    FoundOpen,
    FoundRun,
    FoundRuns,
    FoundValue,
    FromJournal,
    Hello,
    Hurry,
    ListKeys,
    ListOpen,
    ListRuns,
    ReadEvents,
    ReadHistory,
    ReadValue,
    Refused,
    Refusing,
    Statistics,
    ToJournal,
    Void,
    Welcome,
    broker_end,
    encode_message,
    frames_of,
    journal_end,
)
from pronghorn.broker.journal.record import (
    Advanced,
    AttemptLost,
    Ended,
    Reopened,
    Started,
    TaskDone,
)
from pronghorn.broker.journal.rows import Counts, Filter, Pruned
from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.link import LENGTH, HistoryPart


def state() -> Any:
    story = Story()
    return story.states[story.accept(items=3)]


TO_JOURNAL: list[ToJournal] = [
    Hello("e1"),
    FindRun(1, FIRST, SECRET),
    FindKey(2, "uid:1000", "order-17"),
    ListKeys(9, b"", 100),
    ListRuns(3, Filter(statuses=("open", "done"), node="shop.sell"), None, 100),
    ReadEvents(4, FIRST, 0, 100),
    ReadValue(5, FIRST, 0),
    ReadHistory(8, FIRST, FIRST + 4),
    ListOpen(6, 0, 100),
    AskStatistics(7),
    Hurry(),
    Void(),
    Hurry(waited_for=False),
    accepted(value=value({"a": 1})),
    Started(FIRST, FIRST, 2, 5),
    AttemptLost(FIRST, FIRST, FIRST, "signal 9", 5),
    TaskDone(FIRST, FIRST, FIRST, 5, "", 0, 1, value([1])),
    Ended(FIRST, FIRST, FIRST, 5, "done"),
    Reopened(FIRST, FIRST, 5),
    Advanced(FIRST, FIRST, FIRST, 5, value([]), tasks=(("check", "succeeded"),)),
]
FROM_JOURNAL: list[FromJournal] = [
    Welcome(FIRST, ""),
    Committed(FIRST + 5),
    Refusing("the disk is full"),
    FoundRun(1, state()),
    FoundRun(1, None),
    FoundKeys(8, (bytes(16),)),
    FoundRuns(2, (state(),), FIRST),
    FoundEvents(3, ((FIRST, accepted()), (FIRST + 1, Started(FIRST, FIRST, 2, 5)))),
    FoundValue(4, value(5), 0, 0),
    FoundHistory(6, (HistoryPart(FIRST + 1, value([1]), 0),), True, 0),
    FoundOpen(5, ((state(), accepted()),)),
    Statistics(6, Counts(), Pruned(), 4096, 4096),
    Failed(7, "it is damaged"),
    Failed(7, "there is no such run", is_missing=True),
    Refused(FIRST, FIRST, "record 7 does not follow"),
    Broken("record 7 does not follow"),
]


def packed(message: Any, *buffers: bytes) -> bytes:
    return b"".join(LENGTH.pack(len(frame)) + frame for frame in frames_of(message, *buffers))


def test_there_is_an_example_of_each() -> None:
    assert {type(message) for message in TO_JOURNAL} == set(get_args(ToJournal))
    assert {type(message) for message in FROM_JOURNAL} == set(get_args(FromJournal))


@pytest.mark.parametrize("message", TO_JOURNAL, ids=lambda message: type(message).__name__)
def test_messages_reach_the_journal(message: ToJournal) -> None:
    ((read, buffers),) = journal_end().feed(packed(message))
    assert type(read) is type(message)
    assert encode_message(read) == encode_message(message)
    assert list(buffers) == []


@pytest.mark.parametrize("message", FROM_JOURNAL, ids=lambda message: type(message).__name__)
def test_messages_reach_the_broker(message: FromJournal) -> None:
    ((read, _),) = broker_end().feed(packed(message))
    assert type(read) is type(message)
    assert encode_message(read) == encode_message(message)


def test_kinds_are_told_apart_in_both_directions() -> None:
    kinds = [cls.__struct_config__.tag for cls in (*get_args(ToJournal), *get_args(FromJournal))]
    assert len(set(kinds)) == len(kinds)


def test_buffers_of_records_and_values_follow_them() -> None:
    record = accepted(value=value(["a"]), buffers=2)
    ((_, buffers),) = journal_end().feed(packed(record, b"one", b"two"))
    assert list(buffers) == [b"one", b"two"]
    ((_, buffers),) = broker_end().feed(packed(FoundValue(4, value(5), 0, 1), b"one"))
    assert list(buffers) == [b"one"]


@given(st.data(), st.sampled_from([*TO_JOURNAL, *FROM_JOURNAL]))
def test_damaged_messages_are_messages_or_one_of_the_errors(
    data: st.DataObject, message: Any
) -> None:
    body = bytearray(encode_message(message))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    stream = LENGTH.pack(len(body)) + body
    ends: Any = ((journal_end(), ToJournal), (broker_end(), FromJournal))
    for reader, kinds in ends:
        with suppress(*DECODE_ERRORS):
            for found, _ in reader.feed(bytes(stream)):
                assert isinstance(found, get_args(kinds))
