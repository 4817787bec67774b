"""Mirror of worker/local_streams.py; what users see of it is in tests/client/test_streaming.py."""

import threading
from collections import deque
from typing import Any

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client import Event, Progress
from pronghorn.worker import Context
from pronghorn.worker.local_streams import ENDED, LocalArrivals, LocalChannel, ThreadSteps

PATIENCE_S = 20.0


def channel_to(told: Any) -> tuple[LocalChannel, Context]:
    context = Context(request_id="1", node="nodes.it", worker_id=1)
    return LocalChannel(context, told), context


def test_events_are_as_if_they_had_travelled() -> None:
    told: list[Any] = []
    channel, _ = channel_to(told.append)
    channel.progress(1, None, "x")
    value = [(1, 2)]
    channel.emit("found", value)
    assert told == [Progress(1.0, None, "x"), Event("found", [[1, 2]])]
    with pytest.raises(InvalidArgumentError, match="can't be encoded"):
        channel.emit("found", object())


def test_what_the_listener_raises_is_kept_from_the_node() -> None:
    calls: list[Any] = []

    def explode(told: object) -> None:
        calls.append(told)
        raise ZeroDivisionError

    channel, context = channel_to(explode)
    channel.emit("a", 1)
    channel.emit("b", 2)
    assert isinstance(channel.error, ZeroDivisionError)
    assert context.cancelled
    assert len(calls) == 1


def test_a_stream_is_closed_once_and_only_if_it_has_not_ended() -> None:
    closed: list[int] = []

    def close() -> None:
        closed.append(1)

    arrivals = LocalArrivals(lambda: ENDED, close, deque(), None)
    arrivals.close()
    arrivals.close()
    assert closed == [1]
    ended = LocalArrivals(lambda: ENDED, close, deque(), None)
    assert ended.take() == ENDED
    ended.close()
    assert closed == [1]


class SlowSteps:
    """A generator in the middle of a step."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.closed = (threading.Event() for _ in range(3))

    def step(self) -> None:
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)

    def close(self) -> None:
        self.closed.set()


def test_a_generator_is_not_closed_in_the_middle_of_a_step() -> None:
    slow: Any = SlowSteps()
    steps = ThreadSteps(slow)
    thread = threading.Thread(target=steps.step)
    thread.start()
    assert slow.begun.wait(PATIENCE_S)
    steps.close()
    assert not slow.closed.is_set()
    slow.go_on.set()
    thread.join(PATIENCE_S)
    assert slow.closed.is_set()
