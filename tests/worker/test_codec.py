"""Mirror of worker/codec.py."""

import datetime
import decimal
import enum
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import encode
from shown import shown

from pronghorn.broker.wire.limits import BUFFER_BYTES_MIN
from pronghorn.broker.wire.values import encode_params
from pronghorn.worker import Context, node
from pronghorn.worker.codec import ParamsCodec
from pronghorn.worker.signature import read_signature

BIG = bytes(BUFFER_BYTES_MIN)


def codec(function: Callable[..., Any]) -> ParamsCodec:
    return ParamsCodec(read_signature("nodes.it", node(name="it")(function)))


def fields(params: Any, count: int) -> tuple[Any, ...]:
    return tuple(getattr(params, f"p{index}") for index in range(count))


def every_way(of: ParamsCodec, named: dict[str, Any], listed: list[Any] | None) -> list[Any]:
    """Decode the same params in each form that they may come in."""
    forms: list[Any] = [named] if listed is None else [named, listed]
    decoded: list[Any] = []
    for form in forms:
        decoded.append(of.decode_msgpack(encode(form)))
        decoded.append(of.decode_msgpack(msgspec.Raw(encode(form))))
        decoded.append(of.decode_msgpack(memoryview(encode(form))))
        decoded.append(of.decode_json(msgspec.json.encode(form)))
        decoded.append(of.decode_with_buffers(encode(form), [b"unused"]))
        decoded += of.decode_list(encode([form]))
    return decoded


def test_every_form_gives_the_same() -> None:
    def it(a: int, b: str, c: float = 1.5) -> None: ...

    of = codec(it)
    for params in every_way(of, {"a": 1, "b": "x"}, [1, "x"]):
        assert fields(params, 3) == (1, "x", 1.5)
    for params in every_way(of, {"c": 2.0, "b": "x", "a": 1}, [1, "x", 2]):
        assert fields(params, 3) == (1, "x", 2.0)


def test_mixed_items() -> None:
    def it(a: int, b: int = 5) -> None: ...

    items = codec(it).decode_list(encode([[1], {"a": 2, "b": 3}, [4, 5]]))
    assert [fields(item, 2) for item in items] == [(1, 5), (2, 3), (4, 5)]


def test_no_params() -> None:
    def it() -> None: ...

    of = codec(it)
    assert of.decode_msgpack(b"\xc0") is None
    assert of.decode_json(b"null") is None
    assert fields(of.defaults(), 0) == ()
    every_way(of, {}, [])
    with pytest.raises(msgspec.ValidationError, match="unknown field `a`"):
        of.decode_msgpack(encode({"a": 1}))
    with pytest.raises(msgspec.ValidationError, match="length 0, got 1"):
        of.decode_msgpack(encode([1]))


def test_keyword_only_with_defaults_may_be_left_out_by_position() -> None:
    def it(a: int, *, b: list[int] = [7], c: Any = len) -> None: ...  # noqa: B006

    of = codec(it)
    for params in every_way(of, {"a": 1}, [1]):
        assert fields(params, 3) == (1, [7], len)
    with pytest.raises(msgspec.ValidationError, match="length 1, got 2"):
        of.decode_msgpack(encode([1, [2]]))


def test_a_required_keyword_only_can_not_come_by_position() -> None:
    def it(a: int, *, b: int) -> None: ...

    of = codec(it)
    for params in every_way(of, {"a": 1, "b": 2}, None):
        assert fields(params, 2) == (1, 2)
    with pytest.raises(
        msgspec.ValidationError,
        match=r"Expected `object`, got `array`|Expected `object \| null`, got `array`",
    ):
        of.decode_msgpack(encode([1, 2]))


def test_positional_only_has_a_name_on_the_wire() -> None:
    def it(a: int, /, b: int) -> None: ...

    for params in every_way(codec(it), {"a": 1, "b": 2}, [1, 2]):
        assert fields(params, 2) == (1, 2)


@pytest.mark.parametrize("default", [[], {}, set(), bytearray(), [1, [2]], {"a": []}, (1, [2])])
def test_a_default_is_never_shared(default: Any) -> None:
    def it(a: Any = default, *, b: Any = default) -> None: ...

    of = codec(it)
    seen = [value for params in every_way(of, {}, []) for value in fields(params, 2)]
    assert all(value == default for value in seen)
    assert len({id(value) for value in (*seen, default)}) == len(seen) + 1


def test_a_sentinel_stays_the_same_object() -> None:
    sentinel = object()

    def it(a: Any = sentinel, *, b: Any = sentinel) -> None: ...

    for params in every_way(codec(it), {}, []):
        assert fields(params, 2) == (sentinel, sentinel)


def test_odd_names() -> None:
    def it(self: int, __init__: int, p9: int, _fields: int, count: int, größe: int) -> None: ...

    names = ["self", "__init__", "p9", "_fields", "count", "größe"]
    named = dict(zip(names, range(6), strict=True))
    for params in every_way(codec(it), named, list(range(6))):
        assert fields(params, 6) == (0, 1, 2, 3, 4, 5)


def test_a_context_has_no_place() -> None:
    def it(a: int, ctx: Context, b: int) -> None: ...

    for params in every_way(codec(it), {"a": 1, "b": 2}, [1, 2]):
        assert fields(params, 2) == (1, 2)


# Types


NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Cart(msgspec.Struct):
    points: list[Point]


class Depth(TypedDict, total=False):
    depth: int


class Pair(NamedTuple):
    a: int
    b: str = ""


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (bool, True, True),
        (None, None, None),
        (bytes, b"ab", b"ab"),
        (bytearray, b"ab", bytearray(b"ab")),
        (memoryview, b"ab", memoryview(b"ab")),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset("a")),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (datetime.datetime, "2024-02-29T12:00:00Z", NOON),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.time, "12:30:00", datetime.time(12, 30)),
        (datetime.timedelta, "PT90S", datetime.timedelta(seconds=90)),
        (uuid.UUID, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (Colour, "red", Colour.RED),
        (Point, {"x": 1}, Point(1)),
        (Cart, {"points": [{"x": 1, "y": 2}]}, Cart([Point(1, 2)])),
        (Depth, {"depth": 3}, {"depth": 3}),
        (Pair, [1], Pair(1)),
        (int | None, None, None),
        (int | str | list[int], [1], [1]),
        (Literal["a", "b"], "b", "b"),
        (Annotated[int, msgspec.Meta(ge=3)], 3, 3),
        (Any, {"a": [1, None]}, {"a": [1, None]}),
    ],
    ids=shown,
)  # fmt: skip
def test_types(annotation: Any, value: Any, expected: Any) -> None:
    def it(x):  # type: ignore[no-untyped-def]
        ...

    it.__annotations__ = {"x": annotation}
    for params in every_way(codec(it), {"x": value}, [value]):
        assert params.p0 == expected
        assert type(params.p0) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(int, "3"), (int, 3.0), (int, True), (float, "1"), (str, 1), (bool, 1), (bytes, 1),
     (list[int], {}), (Annotated[int, msgspec.Meta(ge=3)], 2), (Colour, "blue"), (Point, {})],
    ids=shown,
)  # fmt: skip
def test_types_are_checked_strictly(annotation: Any, value: Any) -> None:
    def it(x):  # type: ignore[no-untyped-def]
        ...

    it.__annotations__ = {"x": annotation}
    of = codec(it)
    for decode in (of.decode_msgpack, lambda raw: of.decode_with_buffers(raw, [b""])):
        for form, path in (({"x": value}, r"\$\.x"), ([value], r"\$\[0\]")):
            with pytest.raises(msgspec.ValidationError, match=f" - at `{path}`$"):
                decode(encode(form))


# Buffers


@pytest.mark.parametrize("cls", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [3, BUFFER_BYTES_MIN])
def test_byte_strings_come_as_their_type_lifted_or_not(cls: Any, size: int) -> None:
    def it(a: cls, b: cls | None = None, *, c: Any = None) -> None: ...

    value = b"x" * size
    of = codec(it)
    for params in ({"a": value, "b": value, "c": value}, {"a": value, "c": value}, [value]):
        body, buffers = encode_params(params)
        decoded = of.decode_with_buffers(body, buffers)
        for got in fields(decoded, 2)[: len(params) - 1 or 1]:
            assert type(got) is cls or got is None
            assert got is None or got == value
        if isinstance(params, dict):
            assert decoded.p2 == value
            assert type(decoded.p2) is bytes


def test_nothing_is_copied_where_the_type_allows() -> None:
    def it(a: bytes, b: memoryview, c: np.ndarray, d: Any) -> None: ...  # type: ignore[type-arg]

    array = np.frombuffer(BIG, dtype="<f8")
    body, buffers = encode_params([BIG, BIG, array, BIG])
    a, b, c, d = fields(codec(it).decode_with_buffers(body, buffers), 4)
    assert a is BIG
    assert b.obj is BIG
    assert np.shares_memory(c, array)
    assert not c.flags.writeable
    assert d is BIG


def test_arrays_come_inline_too() -> None:
    def it(a: npt.NDArray[np.float64], b: np.ndarray | None, c: Any) -> None: ...  # type: ignore[type-arg]

    small = np.array([[1.0, 2.0]])
    of = codec(it)
    body, buffers = encode_params({"a": small, "b": None, "c": small})
    assert not buffers
    for params in (of.decode_msgpack(body), of.decode_with_buffers(body, [b""])):
        assert params.p0.tolist() == params.p2.tolist() == [[1.0, 2.0]]
        assert params.p1 is None
    params = of.decode_json(b'{"a": [[1, 2]], "b": [3], "c": [4]}')
    assert (params.p0.tolist(), params.p1.tolist(), params.p2) == ([[1.0, 2.0]], [3], [4])
    body, buffers = encode_params([np.arange(3), None, None])
    with pytest.raises(msgspec.ValidationError, match=r"Expected `ndarray` of float64, got int64"):
        of.decode_msgpack(body)


def test_the_constraints_of_a_lifted_value_hold() -> None:
    def it(a: Annotated[bytes, msgspec.Meta(max_length=5)]) -> None: ...

    of = codec(it)
    body, buffers = encode_params([BIG])
    with pytest.raises(msgspec.ValidationError, match=r"length <= 5 - at `\$\[0\]`"):
        of.decode_with_buffers(body, buffers)
    body, buffers = encode_params({"a": b"12345"})
    assert of.decode_with_buffers(body, [b""]).p0 == b"12345"


def test_metadata_and_nested_arrays_beside_a_buffer() -> None:
    def it(a: Annotated[bytes, msgspec.Meta(title="x")], b: list[np.ndarray]) -> None: ...  # type: ignore[type-arg]

    body, buffers = encode_params([BIG, [np.arange(2)]])
    params = codec(it).decode_with_buffers(body, buffers)
    assert params.p0 is BIG
    assert params.p1[0].tolist() == [0, 1]


def test_the_code_of_a_users_type_may_decode_meanwhile() -> None:
    inner: list[Any] = []

    class Nested(msgspec.Struct):
        def __post_init__(self) -> None:
            inner.append(of.decode_with_buffers(encode_params([BIG])[0], [BIG]).p0)

    def it(a: bytes, b: Nested | None = None, c: bytes = b"") -> None: ...

    of = codec(it)
    other = bytes(reversed(BIG)) + b"x"
    body, buffers = encode_params({"a": other, "b": {}, "c": other})
    params = of.decode_with_buffers(body, buffers)
    assert (params.p0, params.p2, inner) == (other, other, [BIG])


def test_no_buffer_is_kept_when_decoding_is_over() -> None:
    class Counted(bytearray):
        """Can be referred to weakly, unlike bytes."""

    def it(a: int) -> None: ...

    of = codec(it)
    buffer = Counted(BIG)
    kept = weakref.ref(buffer)
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        of.decode_with_buffers(encode_params([buffer])[0], [buffer])
    del buffer
    assert kept() is None


def test_a_buffer_for_another_type_is_refused() -> None:
    def it(a: list[int], b: bytes | None = None) -> None: ...

    of = codec(it)
    body, buffers = encode_params([BIG])
    with pytest.raises(msgspec.ValidationError, match=r"Expected `array`, got `ext`"):
        of.decode_with_buffers(body, buffers)
    with pytest.raises(msgspec.ValidationError, match=r"Expected `bytes \| null`, got `str` - at"):
        of.decode_with_buffers(encode({"a": [], "b": "QUI="}), buffers)
    for reference, reason in ((BIG, "there is no buffer 1: 1 came"),):
        body, _ = encode_params({"a": [], "c": BIG, "b": reference})
        with pytest.raises(msgspec.ValidationError, match=reason + "|unknown field"):
            of.decode_with_buffers(body, [BIG])


def test_a_reference_without_buffers_is_refused() -> None:
    def it(a: bytes, b: Any = None) -> None: ...

    of = codec(it)
    with pytest.raises(msgspec.ValidationError, match="Expected `bytes`, got `ext`"):
        of.decode_msgpack(encode_params([BIG])[0])
    with pytest.raises(msgspec.ValidationError, match="there is no buffer 0: 0 came"):
        of.decode_msgpack(encode_params([b"", BIG])[0])


def outcome(decode: Callable[[bytes], Any], raw: bytes) -> tuple[Any, ...] | str:
    try:
        return fields(decode(raw), 4)
    except msgspec.ValidationError as error:
        return str(error)


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from("abcde"), st.binary(max_size=20) | st.integers(-(2**63), 2**64 - 1)
    )
)
def test_buffers_or_not_the_same_params_come_out(params: dict[str, Any]) -> None:
    def it(a: bytes = b"", b: Any = 0, c: int = 0, d: int | None = None) -> None: ...

    of = codec(it)
    raw = encode(params)
    with_buffers = outcome(lambda raw: of.decode_with_buffers(raw, [b"x"]), raw)
    assert with_buffers == outcome(of.decode_msgpack, raw)
