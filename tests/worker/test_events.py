"""Mirror of worker/events.py: progress and events by credit, without a worker."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import CancelledError, InvalidArgumentError, OverloadedError
from pronghorn.broker.wire.limits import EVENT_BYTES_MAX
from pronghorn.broker.wire.link import Emitted, Progressed
from pronghorn.worker.context import Context
from pronghorn.worker.events import EventChannel

PATIENCE_S = 20.0


class Told:
    """A channel, and what it has sent."""

    def __init__(self, credit: int, pump: Callable[[float], None] | None = None) -> None:
        self.sent: list[Progressed | Emitted] = []
        self.context = Context(request_id="1", node="nodes.it", worker_id=1)
        self.channel = EventChannel(
            1, self.context, credit, send=self.sent.append, pump=lambda: pump
        )

    def done(self) -> list[Any]:
        return [one.done if isinstance(one, Progressed) else one.name for one in self.sent]


def test_progress_leaves_half_of_the_credit_to_events() -> None:
    told = Told(4)
    for done in range(5):
        told.channel.progress(done, None, "")
    told.channel.emit("a", 1)
    told.channel.emit("b", 2)
    assert told.done() == [0, 1, "a", "b"]


def test_the_newest_progress_goes_with_the_next_credit() -> None:
    told = Told(2)
    for done in range(5):
        told.channel.progress(done, 9, "x")
    told.channel.more(1)
    assert told.sent == [Progressed(1, 0.0, 9.0, "x"), Progressed(1, 4.0, 9.0, "x")]
    told.channel.more(1)
    assert len(told.sent) == 2, "it is sent once"


def test_credit_that_waits_on_the_link_is_looked_for() -> None:
    told = Told(2, lambda seconds: told.channel.more(1))
    for done in range(3):
        told.channel.progress(done, None, "")
    assert told.done() == [0, 1, 2]


def test_a_thread_waits_for_credit() -> None:
    told = Told(0)
    thread = threading.Thread(target=told.channel.emit, args=("a", 1))
    thread.start()
    told.channel.more(1)
    thread.join(PATIENCE_S)
    assert told.sent == [Emitted(1, "a", Raw(encode(1)))]


def test_it_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronghorn.worker.events.EMIT_WAIT_S", 0.01)
    with pytest.raises(OverloadedError, match="event 'a' was not sent") as refused:
        Told(0).channel.emit("a", 1)
    assert refused.value.details.retryable


async def test_a_coroutine_does_not_wait_at_all() -> None:
    with pytest.raises(OverloadedError):
        Told(0).channel.emit("a", 1)


def test_it_does_not_wait_for_a_call_that_was_given_up() -> None:
    told = Told(0)
    told.context.mark_cancelled()
    with pytest.raises(CancelledError, match="the call was given up"):
        told.channel.emit("a", 1)


def test_after_its_end_a_call_tells_nothing() -> None:
    told = Told(0)
    told.channel.progress(1, None, "")
    told.channel.close()
    told.channel.more(9)
    told.channel.emit("a", 1)
    told.channel.progress(2, None, "")
    assert told.sent == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("a", object(), "event 'a' can't be encoded"),
        (1, 1, "an event's name is text, not 1"),
        ("\udcff", 1, "can't be encoded"),
        ("a", "x" * EVENT_BYTES_MAX, f"the limit is {EVENT_BYTES_MAX}"),
        ("x" * (EVENT_BYTES_MAX + 1), 1, f"the limit is {EVENT_BYTES_MAX}"),
    ],
)
def test_bad_events_are_refused(name: Any, value: Any, text: str) -> None:
    told = Told(9)
    with pytest.raises(InvalidArgumentError, match=text):
        told.channel.emit(name, value)
    assert told.sent == []


def test_a_message_for_people_is_cut() -> None:
    told = Told(9)
    told.channel.progress(1, 2, "x" * 10**6)
    (sent,) = told.sent
    assert isinstance(sent, Progressed)
    assert len(sent.message) <= EVENT_BYTES_MAX
