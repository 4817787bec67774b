"""References: their bytes, and how they are told from other values."""

from typing import Any

import msgspec
import pytest
from msgspec.msgpack import Ext, decode, encode

from pronghorn.broker.wire.references import (
    EXT_REFERENCE,
    Reference,
    is_reference,
    may_refer,
    owner_prefix,
    read_reference,
    reference_of,
)

REFERENCE = Reference(4711, bytes(range(16)), 1_000_000)


def test_reference_is_one_extension() -> None:
    raw = REFERENCE.encode()
    assert raw.hex() == (
        "c71c03" + "00001267" + "000102030405060708090a0b0c0d0e0f" + "00000000000f4240"
    )
    ext = decode(raw)
    assert (type(ext), ext.code) == (Ext, EXT_REFERENCE)
    assert reference_of(ext.code, ext.data) == read_reference(raw) == REFERENCE


def test_file_is_named_after_its_owner_and_what_is_random() -> None:
    assert REFERENCE.file_name == "4711-000102030405060708090a0b0c0d0e0f"
    assert REFERENCE.file_name.startswith(owner_prefix(4711))
    assert not REFERENCE.file_name.startswith(owner_prefix(471))


@pytest.mark.parametrize("value", [None, 1, "text", b"\xc7\x1c\x03", [1], {"a": 1}, Ext(3, b"x")])
def test_other_values_are_none(value: Any) -> None:
    assert not is_reference(encode(value))
    assert not is_reference(msgspec.Raw(encode(value)))


def test_they_are_found_at_any_depth() -> None:
    inner = encode({"a": [{"b": msgspec.Raw(REFERENCE.encode())}]})
    assert may_refer(inner)
    assert may_refer(msgspec.Raw(inner))
    assert may_refer(memoryview(inner))
    assert not may_refer(encode({"a": [1, 2]}))
    assert may_refer(encode(b"\xc7\x1c\x03"))  # it is quick


def test_extensions_that_are_none() -> None:
    assert reference_of(1, b"") is None
    for size in (0, 27, 29):
        with pytest.raises(msgspec.ValidationError, match="malformed"):
            reference_of(EXT_REFERENCE, bytes(size))
