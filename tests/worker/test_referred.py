"""Params with references: what a node gets is what it would have got without, and is its own."""

import enum
from collections.abc import Collection, Hashable, Mapping, Sequence, Set
from datetime import datetime
from random import Random
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Raw
from msgspec.msgpack import Ext, encode

from pronghorn.broker.wire.errors import ErrorDetails, InvalidArgumentError
from pronghorn.broker.wire.references import Reference
from pronghorn.broker.wire.values import NO_BUFFERS, encode_params
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable, Entry
from pronghorn.worker.referred import ABSENT, is_read_only, refers, replaced


class Here:
    """Values that are in this process."""

    def __init__(self) -> None:
        self.contents: dict[Reference, bytes] = {}
        self.kept: dict[tuple[Reference, Hashable], Any] = {}
        self.asked = 0

    def put(self, value: Any) -> Raw:
        content = encode(value)
        reference = Reference(1, len(self.contents).to_bytes(16, "big"), len(content))
        self.contents[reference] = content
        return Raw(reference.encode())

    def content(self, reference: Reference) -> bytes:
        self.asked += 1
        if reference not in self.contents:
            raise InvalidArgumentError("it is not there", ErrorDetails(retryable=True))
        return self.contents[reference]

    def known(self, reference: Reference, form: Hashable) -> Any:
        return self.kept.get((reference, form), ABSENT)

    def keep(self, reference: Reference, form: Hashable, value: Any) -> None:
        self.kept[reference, form] = value


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Color(enum.Enum):
    RED = "red"


@node
def of_list(value: list[int], n: int = 0) -> Any:
    return value


@node
def of_any(value, n: int = 0):  # type: ignore[no-untyped-def]
    return value


@node
def of_dict(value: dict[str, Any], n: int = 0) -> Any:
    return value


@node
def of_text(value: str, n: int = 0) -> Any:
    return value


@node
def of_bytes(value: bytes | None, n: int = 0) -> Any:
    return value


@node
def of_view(value: memoryview, n: int = 0) -> Any:
    return value


@node
def of_sequence(value: Sequence[int], n: int = 0) -> Any:
    return value


@node
def of_mapping(value: Mapping[str, Sequence[str] | int], n: int = 0) -> Any:
    return value


@node
def of_anything(value: Sequence[Any], n: int = 0) -> Any:
    return value


@node
def of_points(value: list[Point], n: int = 0) -> Any:
    return value


@node
def of_tuple(value: tuple[int, ...], n: int = 0) -> Any:
    return value


@node
def of_number(value: int, n: int = 0) -> Any:
    return value


@node
def of_raw(value: Raw, n: int = 0) -> Any:
    return value


@node
def by_keyword(*, value: list[int], others: Sequence[str] = ("a",), extra: list[int] = []) -> Any:  # noqa: B006
    return value, others, extra


TABLE = DispatchTable.of({f"n.{name}": one for name, one in globals().items() if name[:3] == "of_"})
KEYWORD = Entry.of(0, "n.by_keyword", by_keyword)

VALUES: list[tuple[str, Any, bool]] = [  # node, value, whether it is decoded once
    ("of_list", [1, 2], False),
    ("of_any", [1, 2], False),
    ("of_any", {"a": [1]}, False),
    ("of_any", "text", True),
    ("of_any", b"bytes", True),
    ("of_any", datetime.fromisoformat("2026-01-01T00:00:00+00:00"), True),
    ("of_dict", {"a": 1}, False),
    ("of_text", "text", True),
    ("of_bytes", b"bytes", True),
    ("of_view", b"bytes", False),
    ("of_sequence", [1, 2], True),
    ("of_mapping", {"a": ["x"], "b": 2}, True),
    ("of_anything", [1, "a", None], True),
    ("of_anything", [1, ["a"]], False),
    ("of_points", [{"x": 1}], False),
    ("of_tuple", [1, 2], True),
]


def given(entry: Entry, raw: bytes, values: Here) -> Any:
    return entry.invoke(entry.decode_referred(raw, NO_BUFFERS, values))


@pytest.mark.parametrize(("name", "value", "is_once"), VALUES)
def test_a_node_gets_what_it_would_get_otherwise(name: str, value: Any, is_once: bool) -> None:
    entry, values = TABLE.lookup(name), Here()
    plain = entry.invoke(entry.decode(encode({"value": value, "n": 3})))
    raw = encode({"value": values.put(value), "n": 3})
    first, second = given(entry, raw, values), given(entry, raw, values)
    assert first == second == plain
    assert type(first) is type(second) is type(plain)
    assert (first is second) == is_once
    assert values.asked == (1 if is_once else 2)


@pytest.mark.parametrize(("name", "value", "is_once"), VALUES)
def test_so_does_each_item_of_a_chunk(name: str, value: Any, is_once: bool) -> None:
    entry, values = TABLE.lookup(name), Here()
    reference = values.put(value)
    raw = encode([{"value": reference, "n": 1}, {"value": value}, {"n": 2, "value": reference}])
    with pytest.raises(InvalidArgumentError):
        entry.decode_items(raw)
    items = entry.decode_items_referred(raw, values)
    assert len(items) == 3
    got = [entry.invoke(params) for params in items]
    plain = entry.invoke(entry.decode(encode({"value": value})))
    assert got == [plain] * 3
    assert (got[0] is got[2]) == is_once
    assert values.asked == 1  # looked up once for all of them


@pytest.mark.parametrize(
    "given_",
    [
        {"value": {"deep": {"er": "REF"}}},
        {"value": {"list": [1, "REF"]}},
        {"value": {"a": b"\xc7\x1c\x03", "when": datetime.fromisoformat("2026-01-01T00:00Z")}},
    ],
)
def test_references_may_stand_anywhere(given_: dict[str, Any]) -> None:
    values, entry = Here(), TABLE.lookup("of_dict")
    reference = values.put([1, {"b": 2}])

    def put(value: Any, what: Any) -> Any:
        if isinstance(value, dict):
            return {name: put(each, what) for name, each in value.items()}
        if isinstance(value, list):
            return [put(each, what) for each in value]
        return what if value == "REF" else value

    raw = encode(put(given_, reference))
    assert given(entry, raw, values) == put(given_, [1, {"b": 2}])["value"]


def test_params_by_position_and_beside_buffers() -> None:
    values = Here()
    assert given(TABLE.lookup("of_list"), encode([values.put([1]), 5]), values) == [1]
    entry = TABLE.lookup("of_any")
    body, buffers = encode_params({"value": b"x" * 100_000, "n": values.put(3)})
    assert len(buffers) == 1
    params = entry.decode_referred(body, buffers, values)
    assert entry.invoke(params) == b"x" * 100_000


def test_defaults_and_keywords() -> None:
    values = Here()
    value = values.put([1])
    raw = encode({"value": value})
    first, second = given(KEYWORD, raw, values), given(KEYWORD, raw, values)
    assert first == second == ([1], ("a",), [])
    assert first[2] is not second[2]
    raw = encode({"value": value, "others": ["b"], "extra": value})
    assert given(KEYWORD, raw, values) == ([1], ["b"], [1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("of_list", [1, "a"]),
        ("of_list", "text"),
        ("of_text", 5),
        ("of_number", "text"),
        ("of_points", [{"y": 1}]),
    ],
)
def test_errors_are_those_that_come_otherwise(name: str, value: Any) -> None:
    entry, values = TABLE.lookup(name), Here()
    with pytest.raises(InvalidArgumentError) as plain:
        entry.decode(encode({"value": value}))
    raw = encode({"value": values.put(value)})
    with pytest.raises(InvalidArgumentError) as referred:
        entry.decode_referred(raw, NO_BUFFERS, values)
    assert str(referred.value) == str(plain.value)
    assert referred.value.details == plain.value.details
    (refused,) = entry.decode_items_referred(b"\x91" + raw, values)
    assert str(refused) == str(plain.value)


@pytest.mark.parametrize("given_", [{"other": 1}, {"n": "REF"}, {"value": "REF", "other": 1}])
def test_parameters_that_are_wrong(given_: dict[str, Any]) -> None:
    values, entry = Here(), TABLE.lookup("of_list")
    reference = values.put([1])
    raw = encode({name: reference if each == "REF" else each for name, each in given_.items()})
    plain = encode({name: [1] if each == "REF" else each for name, each in given_.items()})
    with pytest.raises(InvalidArgumentError) as expected:
        entry.decode(plain)
    with pytest.raises(InvalidArgumentError) as error:
        entry.decode_referred(raw, NO_BUFFERS, values)
    assert str(error.value) == str(expected.value)


def test_values_that_can_t_be_had() -> None:
    values, entry = Here(), TABLE.lookup("of_list")
    gone = Raw(Reference(1, b"x" * 16, 5).encode())
    raw = encode({"value": gone})
    with pytest.raises(InvalidArgumentError, match="not there") as error:
        entry.decode_referred(raw, NO_BUFFERS, values)
    assert error.value.retryable
    first, second = entry.decode_items_referred(encode([{"value": gone}, {"value": [1]}]), values)
    assert isinstance(first, InvalidArgumentError)
    assert entry.invoke(second) == [1]


def test_what_is_no_params_at_all() -> None:
    entry, values = TABLE.lookup("of_list"), Here()
    for raw in (b"\xc7\x1c\x03", b"\xc1", encode(values.put([1]))):
        with pytest.raises(InvalidArgumentError):
            entry.decode_referred(raw, NO_BUFFERS, values)
        with pytest.raises(InvalidArgumentError):
            entry.decode_items_referred(raw, values)
    assert entry.invoke(entry.decode_referred(encode({"value": [1]}), NO_BUFFERS, values)) == [1]


def test_whatever_comes_is_decoded_or_refused() -> None:
    """Change bytes of params with references, at random."""
    random = Random(7)
    values = Here()
    reference = values.put([1, 2, "a", {"b": None}])
    for _ in range(3000):
        entry = random.choice(TABLE.entries)
        raw = bytearray(encode([{"value": reference, "n": 1}, {"value": {"c": [reference]}}]))
        for _ in range(random.randrange(4)):
            raw[random.randrange(len(raw))] = random.randrange(256)
        try:
            for params in entry.decode_items_referred(bytes(raw), values):
                assert isinstance(params, InvalidArgumentError) or params is not None
            entry.decode_referred(bytes(raw[1:]), NO_BUFFERS, values)
        except InvalidArgumentError:
            pass


def test_a_node_that_takes_any_extension_gets_no_reference() -> None:
    entry, values = TABLE.lookup("of_raw"), Here()
    raw = encode({"value": values.put([1])})
    for decode in (entry.decode, lambda raw: entry.decode_items(b"\x91" + raw)):
        with pytest.raises(InvalidArgumentError, match="a reference stands for"):
            decode(raw)
    with pytest.raises(InvalidArgumentError, match="a reference stands for"):
        entry.decode_with_buffers(raw, [b"x"])
    assert bytes(given(entry, raw, values)) == encode([1])
    within = encode({"value": {"a": values.put([1])}, "n": 2})
    assert bytes(given(entry, within, values)) == encode({"a": [1]})
    (params,) = entry.decode_items_referred(b"\x91" + within, values)
    assert bytes(entry.invoke(params)) == encode({"a": [1]})
    text = encode({"value": "\\" + b"\xc7\x1c\x03".decode("latin-1")})
    assert bytes(entry.invoke(entry.decode(text))) == text[7:]
    lookalike = encode({"value": b"\xc7\x1c\x03"})
    assert bytes(entry.invoke(entry.decode(lookalike))) == lookalike[7:]


def test_a_value_may_be_an_array() -> None:
    numpy = pytest.importorskip("numpy")
    values, entry = Here(), TABLE.lookup("of_any")
    from pronghorn.broker.wire.values import encode_inline

    content = encode_inline(numpy.arange(5))
    reference = Reference(1, b"a" * 16, len(content))
    values.contents[reference] = content
    raw = encode({"value": Raw(reference.encode())})
    first, second = given(entry, raw, values), given(entry, raw, values)
    first[0] = 7
    assert second.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 1, True),
        (list[int], [1], False),
        (Any, [1], False),
        (Any, "a", True),
        (Sequence, [1, "a"], True),
        (Sequence, [[1]], False),
        (Collection[str], ["a"], True),
        (Set[int], {1}, True),
        (frozenset[int], frozenset({1}), True),
        (set[int], {1}, False),
        (tuple[int, list[int]], (1, [2]), False),
        (tuple[int, str], (1, "a"), True),
        (tuple[int, ...], (1, 2), True),
        (Sequence[list[int]], [[1]], False),
        (Sequence[Sequence[int]], [[1]], True),
        (Mapping[str, Mapping[str, int]], {"a": {"b": 1}}, True),
        (Mapping[str, dict[str, int]], {"a": {"b": 1}}, False),
        (Mapping[str, Any], {"a": 1}, True),
        (Mapping[str, Any], {"a": {}}, False),
        (Sequence[int] | None, [1], True),
        (Sequence[int] | None, None, True),
        (Sequence[int] | dict[str, int], [1], False),
        (Sequence[str | None], ["a", None], True),
        (Sequence[Literal["a"]], ["a"], True),
        (Annotated[Sequence[int], msgspec.Meta(max_length=3)], [1], True),
        (Color, Color.RED, True),
        (Sequence[Color], [Color.RED], True),
        (Point, Point(1), False),
        (Sequence[Point], [Point(1)], False),
    ],
)
def test_what_a_node_can_t_change(annotation: Any, value: Any, expected: bool) -> None:
    assert is_read_only(value, annotation) == expected


def test_replacing_leaves_all_else_as_it_is() -> None:
    values = Here()
    rest = {"x": 1.5, "y": Ext(5, b"abc"), "z": [None, True, -1, 1 << 63, "ü", b"\xff"]}
    assert replaced(encode(rest), values) is None
    assert replaced(encode({**rest, "w": b"\xc7\x1c\x03"}), values) is None
    assert not refers(encode({**rest, "w": b"\xc7\x1c\x03"}))
    raw = encode({**rest, "r": values.put([1])})
    assert refers(raw)
    assert replaced(raw, values) == encode({**rest, "r": [1]})
