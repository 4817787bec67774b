"""Mirror of broker/wire/table.py."""

import time
from collections.abc import Callable
from difflib import get_close_matches

import msgspec

from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.limits import NODE_NAME_BYTES_MAX
from pronghorn.broker.wire.table import NodeInfo, NodeTable


def table(*names: str) -> NodeTable:
    return NodeTable(tuple(NodeInfo(name, "inline") for name in names), digest="d")


def test_a_bare_name_works_where_it_is_unique() -> None:
    assert table("shop.add", "maths.add", "shop.buy").names() == {
        "shop.add": 0,
        "maths.add": 1,
        "shop.buy": 2,
        "buy": 2,
    }


def test_a_full_name_goes_before_a_bare_one() -> None:
    assert table("shop.add", "add").names() == {"shop.add": 0, "add": 1}


def test_names_of_our_own_have_no_bare_name() -> None:
    assert table("shop.add", "pronghorn.nodes").names() == {
        "shop.add": 0,
        "add": 0,
        "pronghorn.nodes": 1,
    }


def test_an_unknown_name_comes_with_what_may_have_been_meant() -> None:
    error = table("shop.add", "maths.pi").not_found("shop.ad")
    assert error.message == "no node named 'shop.ad'; did you mean 'shop.add'?"
    assert error.details == ErrorDetails(outcome="not_started", node="shop.ad")


def test_an_unknown_name_like_no_other_comes_alone() -> None:
    assert table("shop.add").not_found("zzz").message == "no node named 'zzz'"
    assert table().not_found("").message == "no node named ''"


def test_an_ambiguous_name_comes_with_the_nodes_it_may_mean() -> None:
    error = table("shop.add", "maths.add").not_found("add")
    assert error.message == "node name 'add' is ambiguous: shop.add, maths.add"


def test_a_name_too_long_is_not_given_back() -> None:
    error = table("shop.add").not_found("x" * 10_000_000)
    assert error.message == "no node has a name of 10000000 characters, the limit is 255 bytes"
    assert error.details == ErrorDetails(outcome="not_started", limit=NODE_NAME_BYTES_MAX)


def test_an_unknown_name_costs_little_however_many_nodes_there_are() -> None:
    names = [f"shop.item_{index}" for index in range(2000)]
    many = table(*names)

    def costs(of: Callable[[], object]) -> float:
        begun = time.process_time()
        of()
        return time.process_time() - begun

    found = min(costs(lambda: many.not_found("shop.itme_1999")) for _ in range(3))
    compared = min(costs(lambda: get_close_matches("shop.itme_1999", names)) for _ in range(3))
    assert found < compared / 2, "it was compared with all"


def test_a_table_survives_the_wire() -> None:
    known = table("shop.add", "shop.buy")
    encoded = msgspec.msgpack.encode(known)
    assert msgspec.msgpack.decode(encoded, type=NodeTable) == known
