"""Mirror of broker/wire/administration.py."""

from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pronghorn.broker.wire.administration import (
    ORDERS,
    WORKERS_MAX,
    Drain,
    ListWorkers,
    Order,
    Recycle,
    Reload,
    Scale,
    decode_order,
    size_refusal,
)
from pronghorn.broker.wire.builtin import PARAMS_BYTES_MAX
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.table import BUILTIN_PREFIX


def test_orders_have_names_of_our_own() -> None:
    assert len(ORDERS) == 5
    assert all(name.startswith(BUILTIN_PREFIX) for name in ORDERS)


@pytest.mark.parametrize(
    ("order", "params"),
    [
        (ListWorkers(), [{}, [], None]),
        (Reload(), [{}, [], None]),
        (Recycle(), [{}, [], [[]], {"workers": []}, None]),
        (Recycle((1, 2)), [[[1, 2]], {"workers": [1, 2]}]),
        (Scale(3), [[3], {"workers": 3}]),
        (Drain(4), [[4], {"worker": 4}]),
    ],
)
def test_params_come_by_name_or_by_position(order: Order, params: list[Any]) -> None:
    name = str(type(order).__struct_config__.tag)
    for sent in params:
        packed, text = Raw(msgspec.msgpack.encode(sent)), Raw(msgspec.json.encode(sent))
        assert decode_order(name, packed, as_json=False) == order
        assert decode_order(name, text, as_json=True) == order


@pytest.mark.parametrize(
    ("name", "params", "told"),
    [
        ("pronghorn.scale", {}, "missing required field `workers`"),
        ("pronghorn.scale", {"workers": "x"}, "Expected `int`, got `str` - at `$.workers`"),
        ("pronghorn.scale", {"size": 1}, "there is no parameter 'size'; it takes workers"),
        ("pronghorn.scale", [1, 2], "2 parameters are given; it takes workers"),
        ("pronghorn.scale", 3, "parameters are a map or an array, not int"),
        ("pronghorn.workers", [1], "it takes none"),
        ("pronghorn.drain", {"type": "pronghorn.scale", "worker": 1}, "no parameter 'type'"),
        ("pronghorn.recycle", ["all"], "Expected `array`, got `str`"),
    ],
)
def test_other_params_are_refused(name: str, params: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode_order(name, Raw(msgspec.msgpack.encode(params)), as_json=False)
    assert told in str(caught.value)
    assert caught.value.details.node == name


def test_params_that_are_none_are_refused() -> None:
    for as_json, params in ((False, b"\xc1"), (True, b"{"), (False, b"")):
        with pytest.raises(InvalidArgumentError):
            decode_order("pronghorn.scale", Raw(params), as_json=as_json)


def test_params_have_a_limit() -> None:
    long = Raw(msgspec.msgpack.encode([[1] * PARAMS_BYTES_MAX]))
    with pytest.raises(InvalidArgumentError, match="the limit is 65536"):
        decode_order("pronghorn.recycle", long, as_json=False)


def test_the_number_of_workers_has_limits_with_their_reasons() -> None:
    assert size_refusal(0) == "workers is 0; a pool needs at least 1"
    assert f"at most {WORKERS_MAX}, for each takes" in size_refusal(10_000)


orders = st.sampled_from(sorted(ORDERS))
texts = st.sampled_from(["workers", "worker", "type", "é", ""])
params = st.binary(max_size=40) | st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts | st.integers(0, 9), inner),
    max_leaves=6,
).map(msgspec.msgpack.encode)


@given(orders, params, st.booleans())
def test_any_params_are_an_order_or_an_invalid_argument(
    name: str, given_params: bytes, as_json: bool
) -> None:
    with suppress(InvalidArgumentError):
        order = decode_order(name, Raw(given_params), as_json=as_json)
        assert isinstance(order, get_args(Order))
