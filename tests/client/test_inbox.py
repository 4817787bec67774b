"""Mirror of client/inbox.py: what has come of a call, and the credit for more."""

import pytest
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import ProtocolError
from pronghorn.broker.wire.messages import Event as EventMessage
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.messages import Progress as ProgressMessage
from pronghorn.client.inbox import (
    EVENTS,
    STREAM_BYTES,
    STREAM_ITEMS,
    Credit,
    Event,
    Inbox,
    Progress,
    told,
)

VALUE = Raw(b"\x03")


def part(seq: int, buffers: int = 0) -> Part:
    return Part(1, seq, VALUE, buffers)


def taken(inbox: Inbox) -> list[object]:
    return [one[0] for one in iter(inbox.take, None)]


def test_what_it_asks_for() -> None:
    both, neither = Inbox(parts=True, events=True), Inbox(parts=False, events=False)
    assert (both.stream, both.events) == ((STREAM_ITEMS, STREAM_BYTES), EVENTS)
    assert (neither.stream, neither.events) == (None, None)


def test_first_in_first_out() -> None:
    inbox = Inbox(parts=True, events=True)
    news = [part(0), EventMessage(1, 0, "a", VALUE), part(1), ProgressMessage(1, 0.5)]
    for one in news:
        inbox.put(one, ())
    assert inbox
    assert taken(inbox) == news
    assert not inbox


def test_who_waits_is_woken() -> None:
    woken: list[int] = []
    inbox = Inbox(parts=True, events=False, wake=lambda: woken.append(1))
    inbox.put(part(0), ())
    assert woken == [1]


def test_credit_is_owed_in_halves_of_what_was_taken() -> None:
    inbox = Inbox(parts=True, events=True)
    for seq in range(STREAM_ITEMS):
        inbox.put(part(seq), ())
    assert inbox.owed() is None, "what has come is not taken"
    owed = []
    while inbox.take() is not None:
        owed.append(inbox.owed())
    half = STREAM_ITEMS // 2
    assert [one for one in owed if one] == [Credit(half, half, 0)] * 2
    assert owed[half - 1] is not None


def test_few_large_parts_are_owed_too() -> None:
    inbox = Inbox(parts=True, events=True)
    inbox.put(part(0, 1), [bytes(STREAM_BYTES)])
    inbox.take()
    assert inbox.owed() == Credit(1, STREAM_BYTES + 1, 0)


def test_events_are_owed() -> None:
    inbox = Inbox(parts=False, events=True)
    for seq in range(EVENTS // 2):
        inbox.put(EventMessage(1, seq, "a", VALUE), ())
    taken(inbox)
    assert inbox.owed() == Credit(0, 0, EVENTS // 2)


def test_newer_progress_replaces_older_which_is_owed_all_the_same() -> None:
    inbox = Inbox(parts=True, events=True)
    for done in range(EVENTS // 2):
        inbox.put(ProgressMessage(1, float(done)), ())
    inbox.put(part(0), ())
    inbox.put(ProgressMessage(1, 500.0), ())
    last = EVENTS // 2 - 1
    assert taken(inbox) == [ProgressMessage(1, last), part(0), ProgressMessage(1, 500.0)]
    assert inbox.owed() == Credit(1, 1, EVENTS // 2 + 1)


@pytest.mark.parametrize("bad", [part(1), part(-1), EventMessage(1, 3, "a", VALUE)])
def test_a_gap_breaks_the_protocol(bad: Part | EventMessage) -> None:
    with pytest.raises(ProtocolError, match="where 0 was to come"):
        Inbox(parts=True, events=True).put(bad, ())


def test_what_a_program_is_given() -> None:
    assert told(ProgressMessage(1, 1.0, 2.0, "x")) == Progress(1.0, 2.0, "x")
    assert told(EventMessage(1, 0, "a", Raw(encode([1])))) == Event("a", [1])
