"""Mirror of client/mapping.py."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.chunks import (
    CHUNK_BYTES_MAX,
    CHUNK_ITEMS_MAX,
    IN_FLIGHT_MAX,
    TARGET_MS,
)
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    ProtocolError,
    WorkerLostError,
)
from pronghorn.broker.wire.messages import Error, ItemFailure, MapResult
from pronghorn.client.mapping import AHEAD_ITEMS, Chunk, MapPlan


def make_plan(
    items: Iterable[Any],
    *,
    ordered: bool = True,
    chunk_size: int | None = None,
    result_type: Any = Any,
) -> MapPlan:
    return MapPlan("m.add", items, ordered=ordered, chunk_size=chunk_size, result_type=result_type)


def answer(
    chunk: Chunk, *, run_ms: float = 1.0, failures: tuple[ItemFailure, ...] | None = None
) -> MapResult:
    """Answer each item with itself."""
    failed = {failure.index for failure in failures or ()}
    values = [None if index in failed else item for index, item in enumerate(chunk.items)]
    return MapResult(1, Raw(msgspec.msgpack.encode(values)), failures, run_ms)


def broken_off(chunk: Chunk, at: int) -> MapResult:
    """Answer the items before one that was lost, behind which none was begun."""
    values = Raw(msgspec.msgpack.encode([*chunk.items[:at], None]))
    details = ErrorDetails(outcome="maybe_executed", cause="signal 9")
    return MapResult(1, values, (ItemFailure(at, "WORKER_LOST", "gone", details),))


def given_out(plan: MapPlan) -> list[Any]:
    return [value for results in plan.results() for value in results.values]


def run(plan: MapPlan, run_ms_per_item: float = 1.0) -> list[int]:
    """Answer all chunks in order; returns their lengths."""
    lengths = []
    chunks = list(plan.next_chunks())
    while chunks:
        chunk = chunks.pop(0)
        lengths.append(len(chunk.items))
        plan.replied(chunk, answer(chunk, run_ms=run_ms_per_item * len(chunk.items)))
        chunks += plan.next_chunks()
    return lengths


def test_a_map_of_nothing_is_finished_at_once() -> None:
    plan = make_plan([])
    assert not plan.finished  # nobody has looked yet
    assert list(plan.next_chunks()) == []
    assert plan.finished
    assert given_out(plan) == []


def test_each_item_has_its_result_in_order() -> None:
    plan = make_plan(range(500))
    run(plan, 0.01)
    assert given_out(plan) == list(range(500))
    assert plan.finished


def test_it_is_finished_when_the_last_result_was_given_out() -> None:
    plan = make_plan([1])
    (chunk,) = plan.next_chunks()
    assert (chunk.first, chunk.items, chunk.body) == (0, [1], msgspec.msgpack.encode([1]))
    assert not plan.finished
    plan.replied(chunk, answer(chunk))
    assert not plan.finished
    assert given_out(plan) == [1]
    assert plan.finished


def test_results_wait_for_those_before_them() -> None:
    plan = make_plan("abc")
    first, second, third = plan.next_chunks()
    plan.replied(third, answer(third))
    plan.replied(second, answer(second))
    assert given_out(plan) == []
    assert not plan.finished
    plan.replied(first, answer(first))
    assert given_out(plan) == ["a", "b", "c"]


def test_without_an_order_results_come_as_they_are() -> None:
    plan = make_plan("abc", ordered=False)
    first, second, third = plan.next_chunks()
    plan.replied(third, answer(third))
    assert given_out(plan) == ["c"]
    plan.replied(first, answer(first))
    plan.replied(second, answer(second))
    assert given_out(plan) == ["a", "b"]
    assert plan.finished


# --- how large chunks are ------------------------------------------------------------------------


def test_the_first_chunks_have_one_item_and_so_many_are_in_flight() -> None:
    plan = make_plan(range(1000))
    chunks = list(plan.next_chunks())
    assert [len(chunk.items) for chunk in chunks] == [1] * IN_FLIGHT_MAX
    assert list(plan.next_chunks()) == []


def test_chunks_grow_to_the_target_time() -> None:
    plan = make_plan(range(2000))
    lengths = run(plan, TARGET_MS / 100)
    assert set(lengths[IN_FLIGHT_MAX + 1 : -1]) == {16, 100}
    assert max(lengths) == 100


def test_a_slow_node_keeps_one_item_a_chunk() -> None:
    assert set(run(make_plan(range(100)), 10 * TARGET_MS)) == {1}


def test_chunks_have_so_many_items_and_no_more() -> None:
    plan = make_plan(iter(range(10**9)))
    chunks = list(plan.next_chunks())
    while max(len(chunk.items) for chunk in chunks) < CHUNK_ITEMS_MAX:
        chunk = chunks.pop(0)
        plan.replied(chunk, answer(chunk, run_ms=0.0))
        chunks += plan.next_chunks()
    for chunk in chunks[:-3]:
        plan.replied(chunk, answer(chunk, run_ms=0.0))
    chunks = [*chunks[-3:], *plan.next_chunks()]
    lengths = [len(chunk.items) for chunk in chunks]
    assert max(lengths) == CHUNK_ITEMS_MAX
    assert AHEAD_ITEMS <= sum(lengths) < AHEAD_ITEMS + CHUNK_ITEMS_MAX


def test_a_small_chunk_that_comes_late_does_not_shrink_the_others() -> None:
    plan = make_plan(range(10**6))
    late, *chunks = plan.next_chunks()
    for chunk in chunks:
        plan.replied(chunk, answer(chunk, run_ms=0.001))
    larger = list(plan.next_chunks())[-1]
    plan.replied(larger, answer(larger, run_ms=0.001 * len(larger.items)))
    plan.replied(late, answer(late, run_ms=0.001))
    assert len(list(plan.next_chunks())[-1].items) > 16


def test_large_results_make_chunks_small() -> None:
    plan = make_plan(range(10_000))
    for chunk in plan.next_chunks():
        body = Raw(msgspec.msgpack.encode([bytes(CHUNK_BYTES_MAX // 4)]))
        plan.replied(chunk, MapResult(1, body, None, 0.001))
    assert {len(chunk.items) for chunk in plan.next_chunks()} <= {3, 4}


def test_a_fixed_size_stays() -> None:
    assert run(make_plan(range(10), chunk_size=4), 1000.0) == [4, 4, 2]


@pytest.mark.parametrize("chunk_size", [0, -3])
def test_a_fixed_size_is_at_least_one(chunk_size: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"chunk_size is {chunk_size}"):
        make_plan([1], chunk_size=chunk_size)


def test_large_items_are_cut_into_chunks_by_their_bytes() -> None:
    items = [bytes(CHUNK_BYTES_MAX // 3)] * 8
    plan = make_plan(items, chunk_size=8)
    chunks = list(plan.next_chunks())
    assert [chunk.first for chunk in chunks] == [0, 2, 4, 6]
    assert all(len(chunk.body) <= CHUNK_BYTES_MAX for chunk in chunks)
    for chunk in chunks:
        plan.replied(chunk, answer(chunk))
    assert given_out(plan) == items


def test_an_item_larger_than_a_chunk_is_one() -> None:
    (chunk,) = make_plan([bytes(2 * CHUNK_BYTES_MAX)]).next_chunks()
    assert len(chunk.body) > 2 * CHUNK_BYTES_MAX


def test_after_large_items_chunks_are_cut_smaller() -> None:
    small, large = b"", bytes(CHUNK_BYTES_MAX // 10)
    plan = make_plan([*[small] * IN_FLIGHT_MAX, *[large] * 200])
    for chunk in list(plan.next_chunks()):
        plan.replied(chunk, answer(chunk, run_ms=0.0))
    assert [len(chunk.items) for chunk in plan.next_chunks()][:4] == [8, 8, 8, 8]


def test_an_item_that_can_not_be_encoded_is_named() -> None:
    plan = make_plan([1, 2, object(), 4], chunk_size=4)
    with pytest.raises(InvalidArgumentError, match=r"m\.add: can't encode item 2: .*object"):
        list(plan.next_chunks())


# --- failures ------------------------------------------------------------------------------------


def test_failed_items_are_exceptions_in_their_places() -> None:
    plan = make_plan([1, 2, 3], chunk_size=3)
    (chunk,) = plan.next_chunks()
    details = ErrorDetails(outcome="executed", exception="ValueError")
    plan.replied(chunk, answer(chunk, failures=(ItemFailure(1, "NODE_ERROR", "boom", details),)))
    (results,) = plan.results()
    assert results.failed
    assert (results.values[0], results.values[2]) == (1, 3)
    error = results.values[1]
    assert isinstance(error, NodeError)
    assert (error.message, error.exception) == ("boom", "ValueError")


def test_results_are_converted_to_their_type() -> None:
    for failures in (None, (ItemFailure(1, "NODE_ERROR", "", ErrorDetails()),)):
        plan = make_plan([[1, 2], [3, 4]], chunk_size=2, result_type=tuple[int, int])
        (chunk,) = plan.next_chunks()
        plan.replied(chunk, answer(chunk, failures=failures))
        (results,) = plan.results()
        assert results.failed == bool(failures)
        assert results.values[0] == (1, 2)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("failures", [None, (ItemFailure(1, "NODE_ERROR", "", ErrorDetails()),)])
def test_a_result_of_another_type_is_a_protocol_error_in_its_place(
    failures: Any, ordered: bool
) -> None:
    plan = make_plan([3, 4, "x", 5], chunk_size=4, result_type=int, ordered=ordered)
    (chunk,) = plan.next_chunks()
    plan.replied(chunk, answer(chunk, failures=failures))
    (results,) = plan.results()
    assert results.failed
    values = results.values
    assert [values[0], values[3]] == [3, 5]
    assert type(values[1]) is (NodeError if failures else int)
    assert isinstance(values[2], ProtocolError)
    assert values[2].message == "the result can't be decoded: Expected `int`, got `str`"
    assert values[2].outcome == "executed"
    assert plan.finished


@pytest.mark.parametrize("result_type", [Any, int])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("values", "indexes"),
    [
        ([1, 2, 3], ()),
        ([], ()),
        ([1, 2, 3], (1,)),
        ([1, 2], (2,)),
        ([1, 2], (-1,)),
        ([1, 2], (1, 70)),
        ([1], (1,)),
        ({1: 2}, ()),
        ("ab", ()),
        (7, (1,)),
        (None, ()),
    ],
    ids=str,
)
def test_a_reply_that_does_not_fit_its_chunk_is_an_error_of_each_item(
    values: Any, indexes: tuple[int, ...], ordered: bool, result_type: Any
) -> None:
    plan = make_plan([1, 2, 3], chunk_size=2, ordered=ordered, result_type=result_type)
    first, second = plan.next_chunks()
    failures = tuple(ItemFailure(index, "NODE_ERROR", "", ErrorDetails()) for index in indexes)
    body = Raw(msgspec.msgpack.encode(values))
    plan.replied(first, MapResult(1, body, failures or None, 1.0))
    plan.replied(second, answer(second))
    *errors, last = given_out(plan)
    assert [type(error) for error in errors] == [ProtocolError, ProtocolError]
    assert last == 3
    assert plan.finished


def test_a_reply_that_is_no_msgpack_is_an_error_of_each_item() -> None:
    plan = make_plan([1, 2], chunk_size=2)
    (chunk,) = plan.next_chunks()
    plan.replied(chunk, MapResult(1, Raw(b"\x92\x01"), None, 1.0))
    assert [type(error) for error in given_out(plan)] == [ProtocolError, ProtocolError]
    assert plan.finished


@pytest.mark.parametrize("run_ms", [float("nan"), float("inf"), -1.0, 0.0])
def test_an_absurd_run_time_is_no_failure(run_ms: float) -> None:
    plan = make_plan(range(500))
    run(plan, run_ms)
    assert given_out(plan) == list(range(500))


def test_a_chunk_that_fails_as_a_whole_fails_each_of_its_items() -> None:
    plan = make_plan([1, 2], chunk_size=2)
    (chunk,) = plan.next_chunks()
    plan.replied(chunk, Error(1, "BROKER_LOST", "gone", ErrorDetails(outcome="not_started")))
    (results,) = plan.results()
    assert results.failed
    assert [(type(error), error.outcome) for error in results.values] == [
        (BrokerLostError, "not_started"),
        (BrokerLostError, "not_started"),
    ]
    assert plan.finished


@pytest.mark.parametrize("ordered", [True, False])
def test_what_was_not_begun_of_a_chunk_is_sent_again(ordered: bool) -> None:
    plan = make_plan("abcdef", chunk_size=4, ordered=ordered)
    first, second = plan.next_chunks()
    plan.replied(first, broken_off(first, 1))
    (again,) = plan.next_chunks()
    assert (again.first, again.items) == (2, ["c", "d"])
    plan.replied(again, answer(again))
    plan.replied(second, answer(second))
    ran, doubtful, *rest = given_out(plan)
    assert ran == "a"
    assert isinstance(doubtful, WorkerLostError)
    assert doubtful.outcome == "maybe_executed"
    assert rest == ["c", "d", "e", "f"]
    assert plan.finished


def test_a_chunk_that_was_lost_at_its_last_item_is_over() -> None:
    plan = make_plan("ab", chunk_size=2)
    (chunk,) = plan.next_chunks()
    plan.replied(chunk, broken_off(chunk, 1))
    ran, doubtful = given_out(plan)
    assert (ran, doubtful.outcome) == ("a", "maybe_executed")
    assert list(plan.next_chunks()) == []
    assert plan.finished


def test_what_is_sent_again_goes_before_what_is_new() -> None:
    plan = make_plan(range(3 * IN_FLIGHT_MAX), chunk_size=2)
    first, *_ = plan.next_chunks()
    plan.replied(first, broken_off(first, 0))
    again, *_ = plan.next_chunks()
    assert again.items == [1]
