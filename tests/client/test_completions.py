"""Mirror of client/completions.py."""

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.errors import CancelledError, ErrorDetails, InvalidArgumentError, Outcome
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import Error, Pong, Result
from pronghorn.client.completions import Completion, lost_reply, too_large, unsent
from pronghorn.client.waiting import WaitingRequest

VALUE = Raw(b"\x03")


def test_completions_are_values() -> None:
    assert Completion("a", Result(1, VALUE), ()) == Completion("a", Result(1, VALUE), ())
    with pytest.raises(AttributeError):
        Completion("a", Result(1, VALUE), ()).handle = "b"  # type: ignore[misc]
    assert msgspec.structs.asdict(Completion("a", Pong(1, "e"), ()))["handle"] == "a"


def test_what_was_not_sent_was_not_started() -> None:
    waiting = WaitingRequest("a", "add", b"frame", (), 5)
    details = ErrorDetails(outcome="not_started", node="add")
    expected = Completion("a", Error(7, "CANCELLED", "add: given up", details), ())
    assert unsent(7, waiting, CancelledError("add: given up")) == expected


def test_only_what_was_not_started_is_worth_another_try() -> None:
    cases: tuple[tuple[Outcome, bool], ...] = (("not_started", True), ("maybe_executed", False))
    for outcome, retryable in cases:
        reply = lost_reply(7, "gone", outcome)
        assert (reply.id, reply.code, reply.message) == (7, "BROKER_LOST", "gone")
        assert reply.details == ErrorDetails(outcome=outcome, retryable=retryable)


def test_what_is_too_large_is_told_with_the_limit() -> None:
    limits = Limits(request_bytes=4096, buffers=2)
    for size, buffers, text, limit in (
        (4097, 2, "has 4097 bytes, the broker's limit is 4096", 4096),
        (50, 3, "has 3 buffers, the broker's limit is 2", 2),
    ):
        error = too_large(size, buffers, limits)
        assert isinstance(error, InvalidArgumentError)
        assert text in str(error)
        assert error.details.limit == limit
