"""Mirror of client/results.py."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.errors import ErrorDetails, NodeError, ProtocolError
from pronghorn.broker.wire.messages import ItemFailure
from pronghorn.client.results import ResultDecoder, ResultOrder, Results, each_of

FAILURE = ItemFailure(1, "NODE_ERROR", "no", ErrorDetails(outcome="executed"))


def decoded(values: Any, *failures: ItemFailure, of: Any = int, most: int = 3) -> Results:
    return ResultDecoder("m.add", of).decode(Raw(msgspec.msgpack.encode(values)), failures, most)


def test_results_have_the_type_of_the_node() -> None:
    assert decoded([1, 2]) == ([1, 2], False)
    (value, wrong), failed = decoded([1, "x"])
    assert (value, failed) == (1, True)
    assert isinstance(wrong, ProtocolError)


@pytest.mark.parametrize("of", [int, Any])
def test_failures_stand_where_their_items_do(of: Any) -> None:
    (first, error, last), failed = decoded([1, None, 3], FAILURE, of=of)
    assert (first, last, failed) == (1, 3, True)
    assert isinstance(error, NodeError)


@pytest.mark.parametrize(
    ("values", "failures"), [([], ()), ([1, 2, 3, 4], ()), ([1], (FAILURE,)), ({"a": 1}, ())]
)
def test_what_can_not_be_the_results_of_so_many_is_told(values: Any, failures: Any) -> None:
    with pytest.raises(ProtocolError):
        decoded(values, *failures)


def one(value: int) -> Results:
    return Results([value], failed=False)


def test_results_are_given_in_order_or_as_they_come() -> None:
    for ordered in (True, False):
        order = ResultOrder(ordered=ordered)
        order.add(1, one(1))
        assert list(order.given_out()) == ([] if ordered else [one(1)])
        assert order.is_empty != ordered
        order.add(0, one(0))
        assert list(order.given_out()) == ([one(0), one(1)] if ordered else [one(0)])
        assert order.is_empty


def test_a_failure_is_raised_in_its_place_or_given() -> None:
    error = NodeError("no")
    results = Results([1, error, 3], failed=True)
    assert list(each_of(results, return_exceptions=True)) == [1, error, 3]
    given = each_of(results, return_exceptions=False)
    assert next(given) == 1
    with pytest.raises(NodeError):
        next(given)
