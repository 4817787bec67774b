"""Mirror of broker/journal/record.py; replays tests/golden/journal/records.json.

A change of that file is a change of the format.
"""

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_records import FIRST, SECRET, accepted, told, value
from msgspec import Raw

from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.record import (
    FORMAT_VERSION,
    GENERATION_MAX,
    INDEX_MAX,
    Record,
    decode_record,
    encode_body,
    generation_of,
    key_of,
    parse_record,
    read_record,
    seal,
    sequence_at,
    sequence_of,
    unseal,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "journal" / "records.json").read_text())
VECTORS = [pytest.param(vector, id=vector["name"]) for vector in GOLDEN["records"]]


def plain(record: Any) -> Any:
    """Say a record as the golden file does."""

    def encode(of: Any) -> Any:
        if isinstance(of, Raw):
            return {"msgpack": bytes(of).hex(" ")}
        raise NotImplementedError

    fields = {
        name: msgspec.to_builtins(getattr(record, name), enc_hook=encode, builtin_types=(bytes,))
        for name in record.__struct_fields__
    }
    return {"kind": type(record).__name__, **json.loads(json.dumps(fields, default=bytes.hex))}


def test_golden_file_is_of_this_format_and_has_every_kind() -> None:
    assert GOLDEN["format_version"] == FORMAT_VERSION
    kinds = {vector["record"]["kind"] for vector in GOLDEN["records"]}
    assert kinds == {cls.__name__ for cls in get_args(Record)}


@pytest.mark.parametrize("vector", VECTORS)
def test_golden_bytes_mean_what_they_meant(vector: dict[str, Any]) -> None:
    sealed = bytes.fromhex(vector["bytes"])
    place = b"log:" + key_of(vector["sequence"])
    record = read_record(place, sealed)
    assert plain(record) == vector["record"]
    assert seal(place, encode_body(record)) == sealed


def test_sequence_numbers_are_ordered_as_their_keys() -> None:
    numbers = [
        sequence_of(generation, index)
        for generation in (1, 2, 255, 256, GENERATION_MAX)
        for index in (0, 1, 255, 256, INDEX_MAX)
    ]
    assert numbers == sorted(numbers)
    assert [key_of(number) for number in numbers] == sorted(map(key_of, numbers))
    assert [sequence_at(key_of(number)) for number in numbers] == numbers
    assert generation_of(sequence_of(7, 9)) == 7
    assert numbers[-1] < 2**63


def test_a_record_survives_its_sealing() -> None:
    for sequence, record in told(Random(1), 200).records:
        place = b"log:" + key_of(sequence)
        read = read_record(place, memoryview(seal(place, encode_body(record))))
        assert plain(read) == plain(record)


def test_every_flipped_bit_is_noticed() -> None:
    place = b"log:" + key_of(FIRST)
    sealed = seal(place, encode_body(accepted(value=value({"a": 1}))))
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError):
            unseal(place, flipped)


def test_every_truncation_is_noticed() -> None:
    place = b"log:" + key_of(FIRST)
    sealed = seal(place, encode_body(accepted()))
    for length in range(len(sealed)):
        with pytest.raises(DamageError):
            unseal(place, sealed[:length])


def test_a_record_in_the_place_of_another_is_noticed() -> None:
    sealed = seal(b"log:" + key_of(FIRST), encode_body(accepted()))
    with pytest.raises(DamageError, match=f"log {FIRST + 1}: the checksum is wrong"):
        unseal(b"log:" + key_of(FIRST + 1), sealed)
    with pytest.raises(DamageError, match=f"open {FIRST}"):
        unseal(b"open:" + key_of(FIRST), sealed)


def test_a_newer_version_is_told_apart_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronghorn.broker.journal.record.FORMAT_VERSION", 2)
    sealed = seal(b"meta:ab", b"")
    monkeypatch.undo()
    with pytest.raises(DamageError, match="meta 6162: version 2 is not known, only 1"):
        unseal(b"meta:ab", sealed)


def test_what_is_no_record_is_damage() -> None:
    for body in (b"", b"\xc1", b"\x91\x63", encode_body([1, "one"]), b"\x91" * 100_000):
        with pytest.raises(DamageError, match="log"):
            read_record(b"log:" + key_of(1), seal(b"log:" + key_of(1), body))


def test_a_reader_takes_records_that_lack_the_later_fields() -> None:
    body = encode_body([1, FIRST, 0, SECRET, "shop.sell", "uid:1000", 5])
    assert plain(decode_record.decode(body)) == plain(accepted(at_ns=5))


PLACE = b"log:" + key_of(FIRST)
bodies = st.sampled_from(  # behind version and checksum
    [bytes.fromhex(vector["bytes"])[5:] for vector in GOLDEN["records"]]
)


@given(st.binary(max_size=200))
def test_random_bytes_are_damage(sealed: bytes) -> None:
    with pytest.raises(DamageError):
        read_record(PLACE, sealed)


@given(st.data(), bodies)
def test_a_damaged_record_is_damage(data: st.DataObject, body: bytes) -> None:
    sealed = bytearray(seal(PLACE, body))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamageError):
        read_record(PLACE, bytes(sealed))


@given(st.data(), bodies)
def test_a_body_that_was_written_wrongly_is_a_record_or_damage(
    data: st.DataObject, body: bytes
) -> None:
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DamageError):
        found = parse_record(PLACE, bytes(changed[: data.draw(st.integers(0, len(changed)))]))
        assert isinstance(found, get_args(Record))
        encode_body(found)
