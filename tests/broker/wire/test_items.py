"""Mirror of broker/wire/items.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext, decode, encode

from pronghorn.broker.wire.errors import ErrorDetails, NodeError, WorkerLostError
from pronghorn.broker.wire.items import ItemResults, Mark, collect
from pronghorn.broker.wire.messages import ItemFailure

LIMIT = 1000


def make(limit: int = LIMIT) -> ItemResults:
    return ItemResults(
        bytearray(2 * limit),
        memoryview(bytearray(8)).cast("Q"),
        0,
        limit=limit,
        encode=encode,
        unencodable=lambda error, value: NodeError(f"{value!r}: {error}"),
        too_large=lambda size: NodeError(f"{size} bytes"),
    )


def collected(results: ItemResults) -> tuple[list[Any], list[tuple[int, str]]]:
    values, failures = results.collect()
    return decode(values), [(one.index, one.message) for one in failures]


def test_results_are_counted_once_they_are_there() -> None:
    results = make()
    assert results.mark == Mark(0, 0, failed=False)
    results.put(encode("ab"))
    assert results.mark == Mark(1, 3, failed=False)
    results.put(encode(None))
    assert results.mark == Mark(2, 4, failed=False)
    assert collected(results) == (["ab", None], [])


def test_failures_leave_nil_and_are_told_by_their_index() -> None:
    results = make()
    results.put(encode(1))
    results.fail(NodeError("no", ErrorDetails(outcome="executed", node="m.f")))
    results.put(encode(3))
    results.refuse("x", ValueError("odd"))
    values, failures = results.collect()
    assert decode(values) == [1, None, 3, None]
    details = ErrorDetails(outcome="executed", node="m.f")
    assert failures[0] == ItemFailure(1, "NODE_ERROR", "no", details)
    assert (failures[1].index, failures[1].message) == (3, "'x': odd")
    assert results.mark.failed


def test_extensions_that_are_no_failures_stay_as_they_are() -> None:
    results = make()
    results.put(encode(Ext(2, b"data")))
    results.fail(NodeError("no"))
    results.put(encode(Ext(-77 + 1, b"x" * 300)))
    assert collected(results) == ([Ext(2, b"data"), None, Ext(-76, b"x" * 300)], [(1, "no")])


def test_the_result_that_goes_beyond_the_limit_is_the_last() -> None:
    results = make()
    results.put(encode("x" * 900))
    assert not results.is_full
    results.put_last(encode("y" * 900))
    assert results.is_full
    assert [len(value) for value in collected(results)[0]] == [900, 900]


def test_a_result_that_is_too_large_by_itself_has_failed() -> None:
    results = make()
    results.put_last(encode("x" * LIMIT))
    assert collected(results) == ([None], [(0, "1003 bytes")])
    assert not results.is_full


def test_the_item_in_doubt_comes_behind_those_that_are_over() -> None:
    results = make()
    results.put(encode(1))
    results.fail(NodeError("no"))
    mark = results.mark
    lost = WorkerLostError("gone", ErrorDetails(outcome="maybe_executed"))
    values, failures = collect(bytes(results.area[: mark.size]), mark, lost)
    assert decode(values) == [1, None, None]
    assert [(one.index, one.code) for one in failures] == [(1, "NODE_ERROR"), (2, "WORKER_LOST")]


@pytest.mark.parametrize("word", [0, 1, 2**40 + 7, 2**63 + 5 * 2**40 + 9])
def test_a_mark_is_taken_apart(word: int) -> None:
    mark = Mark.of(word)
    assert mark.items * 2**40 + mark.size + mark.failed * 2**63 == word


@given(st.lists(st.one_of(st.integers(-5, 300), st.text(max_size=5), st.just(NodeError("no")))))
def test_whatever_comes_is_told_as_it_came(items: list[Any]) -> None:
    results = make(10_000)
    for item in items:
        if isinstance(item, NodeError):
            results.fail(item)
        else:
            results.put(encode(item))
    values, failures = collected(results)
    wanted = [None if isinstance(item, NodeError) else item for item in items]
    assert values == wanted
    assert failures == [(i, "no") for i, item in enumerate(items) if isinstance(item, NodeError)]
