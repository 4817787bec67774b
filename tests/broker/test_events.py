"""Mirror of broker/events.py: values, and the dispatch by type that the core needs of them."""

from typing import get_args

import msgspec
import pytest

from pronghorn.broker.events import (
    Command,
    Event,
    Malformed,
    Origin,
    PeerGone,
    Probed,
    Received,
    Send,
    Tick,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.messages import Error, Ping, Pong


@pytest.mark.parametrize("cls", [*get_args(Event), *get_args(Command), Origin])
def test_events_and_commands_can_not_be_changed(cls: type[msgspec.Struct]) -> None:
    assert cls.__struct_config__.frozen


def test_they_compare_by_value() -> None:
    assert Probed(b"p") == Probed(b"p")
    assert Received(b"p", Ping(1), 3) == Received(b"p", Ping(1), 3)
    assert Received(b"p", Ping(1), 3) != Received(b"p", Ping(2), 3)
    assert Tick() == Tick()


def test_the_plain_case_is_the_default() -> None:
    received = Received(b"p", Ping(1), 3)
    assert (received.origin, received.buffers) == (None, ())
    send = Send(b"p", Pong(1, "e"))
    assert (send.origin, send.buffers, send.batched) == (None, (), False)
    assert Malformed(b"p", Error(1, "INTERNAL", "", ErrorDetails())).origin is None
    assert not PeerGone(b"p").banned
    assert Origin((), 0, silent=False, batch=0).batch_size == 0
