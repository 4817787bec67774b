"""Mirror of client/waiting.py; what it means for calls is in test_core.py."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_request
from pronghorn.broker.wire.messages import Call, MapChunk, Options
from pronghorn.client.waiting import (
    DUES_ROOM,
    GAPS_MAX,
    LEFT_MS_MIN,
    Waiting,
    WaitingRequest,
    hurried,
)

PARAMS = Raw(b"\x92\x01\x02")


@pytest.fixture
def waiting() -> Waiting[str]:
    return Waiting()


def add(waiting: Waiting[str], request_id: int, due: float) -> None:
    message = Call(request_id, "add", PARAMS, Options(timeout_ms=50.0))
    waiting.add(request_id, WaitingRequest(str(request_id), "add", b"", (), 10, message, due))
    waiting.check_invariants()


def add_without_deadline(waiting: Waiting[str], request_id: int) -> None:
    waiting.requests[request_id] = WaitingRequest(str(request_id), "add", b"frame", (), 10)
    waiting.check_invariants()


def overdue(waiting: Waiting[str], now: float) -> list[int]:
    found = waiting.pop_overdue(now)
    waiting.check_invariants()
    assert [request.handle for _, request in found] == [str(id_) for id_, _ in found]
    return [id_ for id_, _ in found]


def test_the_overdue_are_taken_out_earliest_first(waiting: Waiting[str]) -> None:
    for id_, due in ((1, 3.0), (2, 1.0), (3, 2.0)):
        add(waiting, id_, due)
    add_without_deadline(waiting, 4)
    assert waiting.next_due() == 1.0
    assert overdue(waiting, 0.999) == []
    assert overdue(waiting, 2.0) == [2, 3]
    assert (waiting.next_due(), list(waiting.requests)) == (3.0, [1, 4])
    assert overdue(waiting, 1e9) == [1]
    assert waiting.next_due() == inf


def test_who_has_left_is_not_overdue(waiting: Waiting[str]) -> None:
    for id_ in range(1, 6):
        add(waiting, id_, float(id_))
    waiting.drop([1, 2])
    waiting.pop(4)
    waiting.check_invariants()
    assert waiting.next_due() == 3.0
    assert overdue(waiting, 10.0) == [3, 5]
    add(waiting, 6, 6.0)
    waiting.clear()
    assert (waiting.next_due(), waiting.requests) == (inf, {})


def test_far_deadlines_of_those_that_wait_no_more_do_not_pile_up(waiting: Waiting[str]) -> None:
    add(waiting, 1, 10.0)
    for id_ in range(2, 20 * DUES_ROOM):
        add(waiting, id_, 3600.0)
        assert waiting.pop(id_) is not None
        assert waiting.pop(id_) is None
    assert len(waiting._dues) <= DUES_ROOM
    assert overdue(waiting, 10.0) == [1]
    add(waiting, 20 * DUES_ROOM, 3600.0)
    waiting.drop([20 * DUES_ROOM])
    assert waiting._dues == []


@pytest.mark.parametrize("take_out", [Waiting.pop, lambda waiting, id_: waiting.drop([id_])])
def test_a_dict_that_is_worn_out_at_the_front_is_made_anew(
    waiting: Waiting[str], take_out: Callable[[Waiting[str], int], Any]
) -> None:
    """To find the oldest of 100,000 took longer with each that had been sent."""
    count = 10 * GAPS_MAX
    for id_ in range(count):
        waiting.requests[id_] = WaitingRequest("", "add", b"frame", (), 10)
    made = {id(waiting.requests)}
    for id_ in range(count - 1):
        take_out(waiting, id_)
        made.add(id(waiting.requests))
        assert next(iter(waiting.requests)) == id_ + 1
        assert waiting._gaps <= max(GAPS_MAX, len(waiting.requests))
    assert len(made) > 1


@pytest.mark.parametrize("kind", [Call, MapChunk])
def test_a_request_in_a_hurry_is_the_same_with_less_time(kind: type[Call] | type[MapChunk]) -> None:
    options = Options(timeout_ms=50.0, buffers=1, trace="t")
    message = kind(1, "add", PARAMS, options)
    expected = kind(1, "add", PARAMS, Options(timeout_ms=20.0, buffers=1, trace="t"))
    assert decode_request(hurried(message, 20.0)) == expected


@pytest.mark.parametrize(
    ("left_ms", "told_ms"), [(60.0, 50.0), (inf, 50.0), (0.0, LEFT_MS_MIN), (-5.0, LEFT_MS_MIN)]
)
def test_the_time_left_is_neither_nothing_nor_more_than_all(left_ms: float, told_ms: float) -> None:
    message = Call(1, "add", PARAMS, Options(timeout_ms=50.0))
    options = decode_request(hurried(message, left_ms)).options
    assert options.timeout_ms == told_ms
