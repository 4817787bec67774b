"""Mirror of broker/wire/values.py."""

import dataclasses
import datetime
import sys
import uuid
from collections import OrderedDict, UserDict, UserList, abc
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from pronghorn.broker.wire.errors import ProtocolError
from pronghorn.broker.wire.limits import BUFFER_BYTES_MIN
from pronghorn.broker.wire.values import (
    EXT_ARRAY,
    EXT_BUFFER,
    collected_type,
    convert_lifted,
    decode_foreign,
    decode_value,
    encode_inline,
    encode_json,
    encode_params,
    encode_value,
    extension_hook,
    is_array_type,
    part_type,
    unencodable_path,
)

BIG = bytes(range(256)) * (BUFFER_BYTES_MIN // 256)
SMALL = BIG[:-1]

bare_encode = msgspec.msgpack.encode
bare_decode = msgspec.msgpack.decode

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(plain)
def test_a_small_value_is_plain_msgpack(value: Any) -> None:
    body, buffers = encode_value(value)
    assert body == bare_encode(value)
    assert not buffers
    assert decode_value(bare_encode(value)) == value


@pytest.mark.slow
@given(st.dictionaries(st.text(), plain, max_size=5), st.lists(plain, max_size=5))
def test_small_params_are_plain_msgpack(named: dict[str, Any], listed: list[Any]) -> None:
    for params in (named, listed, tuple(listed)):
        body, buffers = encode_params(params)
        assert body == bare_encode(params)
        assert not buffers


@given(st.binary(max_size=200))
def test_random_bytes_are_a_value_or_a_protocol_error(raw: bytes) -> None:
    with suppress(ProtocolError):
        decode_value(raw, (b"x",))


# Lifting


@pytest.mark.parametrize("cls", [bytes, bytearray, memoryview])
def test_a_large_byte_string_becomes_a_buffer(cls: Any) -> None:
    value = cls(BIG)
    body, buffers = encode_value(value)
    assert body == bare_encode(Ext(EXT_BUFFER, b"\x00"))
    assert buffers == [value]
    assert decode_value(body, buffers) == BIG
    assert type(decode_value(body, buffers)) is bytes


@pytest.mark.parametrize("cls", [bytes, bytearray, memoryview])
def test_one_byte_less_stays_inline(cls: Any) -> None:
    body, buffers = encode_value(cls(SMALL))
    assert body == bare_encode(SMALL)
    assert not buffers


def test_bytes_are_not_copied() -> None:
    body, buffers = encode_value(BIG)
    assert buffers[0] is BIG
    assert decode_value(body, buffers) is BIG
    view = memoryview(bytearray(BIG))
    _, buffers = encode_params([view])
    assert isinstance(buffers[0], memoryview)
    assert buffers[0].obj is view.obj


def test_only_top_level_values_are_lifted() -> None:
    body, buffers = encode_params({"a": BIG, "b": [BIG], "c": {"d": BIG}, "e": 1, "f": BIG})
    assert buffers == [BIG, BIG]
    assert bare_decode(body) == {
        "a": Ext(EXT_BUFFER, b"\x00"),
        "b": [BIG],
        "c": {"d": BIG},
        "e": 1,
        "f": Ext(EXT_BUFFER, b"\x01"),
    }
    body, buffers = encode_value([BIG])
    assert (body, buffers) == (bare_encode([BIG]), ())


@pytest.mark.parametrize("cls", [list, tuple, UserList])
def test_params_by_position_are_lifted(cls: Any) -> None:
    body, buffers = encode_params(cls([1, BIG]))
    assert (bare_decode(body), buffers) == ([1, Ext(EXT_BUFFER, b"\x00")], [BIG])


@pytest.mark.parametrize("cls", [dict, OrderedDict, UserDict])
def test_params_in_any_mapping_are_lifted(cls: Any) -> None:
    body, buffers = encode_params(cls({"a": 1, "b": BIG}))
    assert (bare_decode(body), buffers) == ({"a": 1, "b": Ext(EXT_BUFFER, b"\x00")}, [BIG])


def test_a_view_of_anything_is_its_bytes() -> None:
    wide = memoryview(BIG).cast("I", (2, BUFFER_BYTES_MIN // 8))
    assert [bytes(buffer) for buffer in encode_value(wide)[1]] == [BIG]
    gaps = memoryview(BIG + BIG)[::2]
    assert encode_value(gaps)[1] == [bytes(gaps)]
    assert encode_value(gaps[:10])[0] == bare_encode(bytes(gaps[:10]))
    odd = memoryview(np.zeros(BUFFER_BYTES_MIN // 4, ">i4"))  # a format that views can't read
    assert encode_value(odd)[1] == [bytes(BUFFER_BYTES_MIN)]


@pytest.mark.parametrize("cls", [bytes, bytearray, memoryview])
def test_a_buffer_comes_as_the_type_asked_for(cls: Any) -> None:
    body, buffers = encode_value(BIG)
    value = decode_value(body, buffers, cls)
    assert type(value) is cls
    assert value == BIG
    assert decode_value(body, [memoryview(BIG)], cls | None) == BIG
    with pytest.raises(ProtocolError, match="Expected `int`, got `bytes`"):
        decode_value(body, buffers, int)


def test_a_view_over_a_buffer_can_not_be_written() -> None:
    body, _ = encode_value(BIG)
    value = decode_value(body, [bytearray(BIG)], memoryview)
    assert value.readonly


@pytest.mark.parametrize("index", [1, 7, -1, 2**64 - 1])
def test_a_buffer_that_did_not_come_is_refused(index: int) -> None:
    body = bare_encode(Ext(EXT_BUFFER, bare_encode(index)))
    with pytest.raises(ProtocolError, match=f"there is no buffer {index}: 1 came"):
        decode_value(body, [b"x"])


def test_a_reference_without_any_buffer_is_refused() -> None:
    with pytest.raises(ProtocolError, match="there is no buffer 0: 0 came") as caught:
        decode_value(encode_value(BIG)[0])
    assert caught.value.outcome == "executed"
    with pytest.raises(ProtocolError, match="got `ext`"):
        decode_value(encode_value(BIG)[0], (), bytes)


def test_unknown_extension_types_are_refused() -> None:
    with pytest.raises(ProtocolError, match="unknown extension type 5"):
        decode_value(bare_encode([Ext(5, b"")]))


# Types


def test_a_result_is_checked_and_converted() -> None:
    day = datetime.date(2024, 2, 29)
    assert decode_value(bare_encode({"a": day}), (), dict[str, datetime.date]) == {"a": day}
    with pytest.raises(ProtocolError, match=r"Expected `int`, got `str` - at `\$\[0\]`"):
        decode_value(bare_encode(["x"]), (), list[int])
    unhashable: Any = ["a comment for people"]
    assert decode_value(b"\x01", (), Annotated[int, unhashable]) == 1


def test_what_users_types_raise_is_wrapped() -> None:
    class Odd(msgspec.Struct):
        def __post_init__(self) -> None:
            raise KeyError("odd")

    with pytest.raises(ProtocolError, match="odd"):
        decode_value(b"\x80", (), Odd)


def test_rich_types_travel() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        when: datetime.datetime

    value = [
        Point(1, datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)),
        uuid.UUID(int=5),
        Decimal("1.50"),
        datetime.timedelta(seconds=3),
        {1, 2},
    ]
    types = tuple[Point, uuid.UUID, Decimal, datetime.timedelta, set[int]]
    assert decode_value(encode_value(value)[0], (), types) == tuple(value)


# Arrays

ARRAYS = [
    np.arange(12, dtype="<f8").reshape(3, 4),
    np.arange(12, dtype=">i2").reshape(3, 4).T,
    np.arange(20, dtype="u1")[::3],
    np.array(5),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.array([1 + 2j], dtype="c8"),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(["2024-02-29"], dtype="M8[D]"),
    np.array([5], dtype="m8[25us]"),
    np.arange(BUFFER_BYTES_MIN // 8, dtype="<f8"),
    np.arange(BUFFER_BYTES_MIN // 4, dtype="<f8").reshape(-1, 4).T,
    np.zeros(BUFFER_BYTES_MIN // 8, dtype="M8[ns]"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{array.shape}")
def test_arrays_travel(array: npt.NDArray[Any]) -> None:
    body, buffers = encode_value(array)
    assert len(buffers) == (array.nbytes >= BUFFER_BYTES_MIN)
    for value in (
        decode_value(body, buffers),
        decode_value(body, buffers, np.ndarray),
        decode_value(body, [memoryview(buffer) for buffer in buffers], np.ndarray | None),
    ):
        assert value.dtype == array.dtype
        assert value.shape == array.shape
        assert np.array_equal(value, array)
    nested = decode_value(encode_inline({"a": [array]}))
    assert np.array_equal(nested["a"][0], array)


def test_the_bytes_of_an_array_are_as_specified() -> None:
    array = np.array([[1, 2]], dtype="<u2")
    data = bare_encode(["<u2", [1, 2], b"\x01\x00\x02\x00"])
    assert encode_value(array)[0] == bare_encode(Ext(EXT_ARRAY, data))
    large = np.zeros((2, BUFFER_BYTES_MIN), dtype="u1")
    body, buffers = encode_params([0, large])
    data = bare_encode(["|u1", [2, BUFFER_BYTES_MIN], 0])
    assert body == bare_encode([0, Ext(EXT_ARRAY, data)])
    assert [bytes(buffer) for buffer in buffers] == [bytes(2 * BUFFER_BYTES_MIN)]


def test_a_large_array_is_not_copied() -> None:
    array = np.zeros(BUFFER_BYTES_MIN, dtype="u1")
    body, buffers = encode_value(array)
    assert np.shares_memory(np.frombuffer(buffers[0], dtype="u1"), array)
    value = decode_value(body, buffers)
    assert np.shares_memory(value, array)
    assert not value.flags.writeable


def test_a_small_array_is_the_receivers_own() -> None:
    assert decode_value(encode_value(np.arange(3))[0]).flags.writeable


def test_numpy_scalars_are_pythons() -> None:
    values = [np.float64(1.5), np.int8(3), np.bool_(True), np.str_("a"), np.bytes_(b"b")]
    assert decode_value(encode_value(values)[0]) == [1.5, 3, True, "a", b"b"]
    assert encode_json(values[:4]) == b'[1.5,3,true,"a"]'
    assert encode_value(np.float32(0.5)) == (bare_encode(0.5), [])


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.array([object()] * BUFFER_BYTES_MIN),
        np.zeros(1, dtype=[("a", "i4")]),
        np.zeros(1, dtype="V3"),
    ],
    ids=["object", "large object", "structured", "void"],
)
def test_arrays_of_anything_else_are_refused(array: Any) -> None:
    for encode in (encode_value, encode_inline, encode_json):
        with pytest.raises(TypeError, match=r"Encoding numpy arrays of dtype .* is unsupported"):
            encode(array)


def test_a_masked_array_does_not_lose_its_mask() -> None:
    with pytest.raises(TypeError, match="MaskedArray is unsupported"):
        encode_value(np.ma.masked_array([1], mask=[True]))


def test_a_scalar_without_a_python_twin_is_refused() -> None:
    with pytest.raises(TypeError, match=r"numpy\.complex128 is unsupported"):
        encode_value(np.complex128(1j))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["O", [1], b"12345678"], "is no dtype"),
        (["|O8", [1], b"12345678"], "is no dtype"),
        (["<f8,<f8", [1], bytes(16)], "is no dtype"),
        (["<f3", [1], b"abc"], "malformed array"),
        (["<S0", [1], b""], "is no dtype"),
        (["<f8", [2], b"12345678"], "8 bytes can't fill"),
        (["<f8", [-1], b"12345678"], "negative"),
        (["<f8", [1] * 33, b"12345678"], "too many dimensions"),
        (["<f8", [0, 2**63], b""], "malformed array"),
        (["<f8", [2**40, 2**40], b""], "0 bytes can't fill"),
        (["<f8", [1], 0], "8 bytes|3 bytes"),
        (["<f8", [1], 9], "there is no buffer 9"),
        (["<f8", [1]], "length 3, got 2"),
        ([1, [1], b""], "Expected `str`"),
        ([], "length 3, got 0"),
    ],
)
def test_malformed_arrays_are_refused(fields: list[Any], reason: str) -> None:
    body = bare_encode(Ext(EXT_ARRAY, bare_encode(fields)))
    with pytest.raises(ProtocolError, match=reason):
        decode_value(body, [b"abc"])


@given(st.binary(max_size=40))
def test_random_arrays_are_arrays_or_protocol_errors(data: bytes) -> None:
    with suppress(ProtocolError):
        decode_value(bare_encode(Ext(EXT_ARRAY, data)), [data])


@pytest.mark.slow
@given(
    st.from_regex(r"[<>|]?[biufcmMSUOVT]\d{1,3}(\[[a-z]+\])?", fullmatch=True),
    st.lists(st.integers(-2, 2**40), max_size=4),
    st.binary(max_size=64),
)
def test_odd_arrays_are_arrays_or_protocol_errors(
    dtype: str, shape: list[int], data: bytes
) -> None:
    try:
        value = decode_value(bare_encode(Ext(EXT_ARRAY, bare_encode([dtype, shape, data]))))
    except ProtocolError:
        return
    assert value.nbytes == len(data)


def test_array_annotations() -> None:
    double = npt.NDArray[np.float64]
    assert is_array_type(np.ndarray)
    assert is_array_type(double)
    assert not is_array_type(np.float64)
    assert not is_array_type(list[int])
    body, _ = encode_value(np.arange(3.0))
    assert decode_value(body, (), double).dtype == np.float64
    assert decode_value(body, (), npt.NDArray[np.floating]).dtype == np.float64
    text, _ = encode_value(np.array(["abc"]))
    assert decode_value(text, (), npt.NDArray[np.str_]).tolist() == ["abc"]
    assert decode_value(encode_value(np.arange(3))[0], (), npt.NDArray[np.longlong]).shape == (3,)
    with pytest.raises(ProtocolError, match="Expected `ndarray` of int32, got float64"):
        decode_value(body, (), npt.NDArray[np.int32])
    assert decode_value(bare_encode([1, 2]), (), double).tolist() == [1.0, 2.0]
    for wrong, reason in (
        (5, "Expected `ndarray`, got `int`"),
        ([{}], "float"),
        ([[1], [1, 2]], "inhomogeneous"),
    ):
        with pytest.raises(ProtocolError, match=reason):
            decode_value(bare_encode(wrong), (), double)
    with pytest.raises(ProtocolError, match="Expected an array of numbers"):
        decode_value(bare_encode([None]), (), np.ndarray)
    with pytest.raises(NotImplementedError):
        decode_foreign(range, [1])


def test_without_numpy_an_array_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = encode_value(np.arange(3))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "numpy", None)
        with pytest.raises(ProtocolError, match="numpy is not installed"):
            decode_value(body)
        assert not is_array_type(list)


def test_a_worker_does_not_import_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = encode_value(np.arange(3))
    decoder = msgspec.msgpack.Decoder(ext_hook=extension_hook(()))
    assert decoder.decode(body).tolist() == [0, 1, 2]
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "numpy")
        with pytest.raises(msgspec.ValidationError, match="does not use numpy"):
            decoder.decode(body)
        assert "numpy" not in sys.modules


# JSON


def test_json_has_nested_lists_and_base64() -> None:
    value = {"a": np.arange(4).reshape(2, 2), "b": b"hi", "c": memoryview(b"hi"), "d": {1}}
    assert encode_json(value) == b'{"a":[[0,1],[2,3]],"b":"aGk=","c":"aGk=","d":[1]}'


def test_lifted_values_are_converted() -> None:
    assert convert_lifted(bytearray(b"a"), Any) == b"a"
    assert convert_lifted(memoryview(b"a"), Any) == b"a"
    assert convert_lifted("a", Any) == "a"
    assert convert_lifted(memoryview(b"a"), bytearray) == bytearray(b"a")
    with pytest.raises(msgspec.ValidationError, match="Expected `bytes`, got `str`"):
        convert_lifted("aGk=", bytes)


# What can't be encoded


class Strange:
    pass


@dataclasses.dataclass
class Holder:
    fine: int
    inner: Any


class Record(msgspec.Struct):
    inner: Any


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Strange(), "$"),
        ([1, Strange()], "$[1]"),
        ((Strange(),), "$[0]"),
        ({"a": {"b": [0, Strange()]}}, "$.a.b[1]"),
        ({5: Strange()}, "$[...]"),
        (Holder(1, [Strange()]), "$.inner[0]"),
        (Record(2**64), "$.inner"),
        ({Strange()}, "$"),
        ({"a": "\udc80"}, "$.a"),
    ],
)
def test_the_path_to_what_can_not_be_encoded(value: Any, path: str) -> None:
    with pytest.raises((TypeError, OverflowError, UnicodeEncodeError)):
        encode_value(value)
    assert unencodable_path(value) == path


def test_the_search_in_a_value_that_holds_itself_ends() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(RecursionError):
        encode_value(ring)
    assert unencodable_path(ring).startswith("$[0][0]")


@pytest.mark.parametrize(
    ("annotation", "part"),
    [
        (abc.Iterator[int], int),
        (abc.Iterable[int], int),
        (abc.Generator[int, str, bool], int),
        (abc.AsyncIterator[int], int),
        (abc.AsyncGenerator[int, None], int),
        (abc.Iterator, Any),
        (list[int], Any),
        (None, Any),
    ],
)
def test_a_generators_annotation_names_its_parts(annotation: Any, part: Any) -> None:
    assert part_type(annotation) is part
    assert collected_type(annotation) == list[part]
