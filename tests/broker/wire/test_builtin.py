"""Mirror of broker/wire/builtin.py; its errors with those of orders in test_administration.py."""

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.builtin import PARAMS_BYTES_MAX, decode_asked, kinds_by_name
from pronghorn.broker.wire.errors import InvalidArgumentError


class Ask(msgspec.Struct, frozen=True, tag="pronghorn.ask"):
    number: int
    more: bool = False


def packed(value: object) -> Raw:
    return Raw(msgspec.msgpack.encode(value))


def test_kinds_are_known_by_their_tags() -> None:
    assert kinds_by_name(Ask) == {"pronghorn.ask": Ask}


@pytest.mark.parametrize("given", [[1, True], {"number": 1, "more": True}])
def test_params_come_by_position_or_by_name(given: object) -> None:
    assert decode_asked("pronghorn.ask", Ask, packed(given), as_json=False) == Ask(1, True)
    text = Raw(msgspec.json.encode(given))
    assert decode_asked("pronghorn.ask", Ask, text, as_json=True) == Ask(1, True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (packed(None), "missing required field `number`"),
        (packed({"size": 1}), "there is no parameter 'size'; it takes number, more"),
        (packed("x"), "parameters are a map or an array, not str"),
        (packed("x" * PARAMS_BYTES_MAX), "the limit is 65536"),
        (Raw(b"\xc1"), "pronghorn.ask: "),
        (Raw(b"\x91" * 10_000), "pronghorn.ask: "),
    ],
)
def test_what_it_does_not_take_is_told(given: Raw, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told) as raised:
        decode_asked("pronghorn.ask", Ask, given, as_json=False)
    assert raised.value.details.node == "pronghorn.ask"
