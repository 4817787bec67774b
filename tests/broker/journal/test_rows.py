"""Mirror of broker/journal/rows.py."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_records import FIRST, SECRET, Story
from msgspec import Raw

from pronghorn.broker.journal import rows
from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.record import key_of
from pronghorn.broker.journal.rows import (
    Table,
    decode_counts,
    decode_state,
    decoded,
    digest_of,
    encode_row,
    format_run_id,
    generation_key,
    key_hash,
    parse_run_id,
    sealed_row,
    sealed_state,
    table_of,
    unsealed,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "journal" / "rows.json").read_text())


@pytest.mark.parametrize("vector", [pytest.param(each, id=each["row"]) for each in GOLDEN["rows"]])
def test_golden_rows_mean_what_they_meant(vector: dict[str, Any]) -> None:
    cls = rows.RunState if vector["row"].startswith("RunState") else getattr(rows, vector["row"])
    table, key = Table[vector["table"].upper()], bytes.fromhex(vector["key"])
    sealed = bytes.fromhex(vector["bytes"])
    row = msgspec.msgpack.decode(unsealed(table, key, sealed), type=cls)
    assert json.loads(msgspec.json.encode(row)) == vector["fields"]
    assert sealed_row(table, key, row) == sealed


def test_golden_lookups_are_found_under_the_same_keys() -> None:
    lookups = GOLDEN["lookups"]
    assert key_hash("uid:1000", "order-17").hex() == lookups["key of uid:1000, order-17"]
    assert digest_of(b"\xa4page").hex() == lookups["digest of the msgpack value 'page'"]
    assert generation_key(3).hex() == lookups["generation 3"]


def test_state_rows_are_in_the_table_of_their_status() -> None:
    story = Story()
    run = story.accept()
    assert table_of(story.states[run]) is Table.OPEN
    story.end(run)
    state = story.states[run]
    assert table_of(state) is Table.DONE
    assert decode_state(unsealed(Table.DONE, key_of(run), sealed_state(state))) == state
    with pytest.raises(DamageError):
        unsealed(Table.OPEN, key_of(run), sealed_state(state))


def test_keys_of_owners_do_not_meet() -> None:
    hashes = {
        key_hash(owner, key) for owner in ("", "a", "ab", "a\0") for key in ("", "b", "bc", "\0b")
    }
    assert len(hashes) == 16


def test_a_digest_is_of_the_content_alone() -> None:
    assert digest_of(b"\xc0") == digest_of(Raw(b"\xc0")) != digest_of(b"\xc2")


def test_what_is_no_row_is_damage() -> None:
    with pytest.raises(DamageError, match="a row of meta"):
        decoded(decode_counts, encode_row(["x"]), Table.META)


def test_ids_of_runs_are_read_as_they_are_written() -> None:
    text = format_run_id(FIRST, SECRET)
    assert text == "0000010000000001000102030405060708090a0b0c0d0e0f"
    assert parse_run_id(text) == (FIRST, SECRET)


@pytest.mark.parametrize(
    "text", ["", "7", "g" * 48, "0" * 47, "0" * 49, "0" * 47 + " ", "é" * 48, "\u0663" * 48]
)
def test_what_is_no_id_of_a_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no id of a run: it has 48 hex digits"):
        parse_run_id(text)


DECODERS = [getattr(rows, name) for name in dir(rows) if name.startswith("decode_")]


@given(st.sampled_from(DECODERS), st.binary(max_size=100))
def test_random_bytes_are_a_row_or_damage(decode: Callable[[bytes], Any], body: bytes) -> None:
    with suppress(DamageError):
        decoded(decode, body, Table.META)


@given(st.text("0123456789abcdefg \0é\u0663", min_size=46, max_size=50))
def test_any_text_is_an_id_of_a_run_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        run, secret = parse_run_id(text)
        assert parse_run_id(format_run_id(run, secret)) == (run, secret)
