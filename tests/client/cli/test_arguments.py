"""How values are written on a command line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, Bounds
from pronghorn.client.cli.arguments import (
    FromFile,
    check_node,
    check_timeout,
    make_bounds,
    parse_assignments,
    parse_cpus,
    parse_params,
    parse_size,
    parse_value,
    read_file,
    value_of_file,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"k": "v"}', {"k": "v"}),
        ('"1"', "1"),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("", ""),
        ("Ada", "Ada"),
        ("two words", "two words"),
        ("True", "True"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("[1,", "[1,"),
        ("1 2", "1 2"),
        ("1e999", "1e999"),
        ("größe", "größe"),
    ],
)
def test_value_is_json_where_it_is_json_else_text(text: str, value: Any) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_given_quoted_and_no_text_fails(text: str) -> None:
    parse_value(text)
    assert parse_value(json.dumps(text)) == text


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="is not UTF-8"):
        parse_value("\udcff")
    with pytest.raises(InvalidArgumentError, match="is not UTF-8"):
        check_node("\udcff")


def test_assignments_make_params_by_name() -> None:
    assert parse_assignments(["a=1", "b=x=y", "c=", "d=@some/file"]) == {
        "a": 1,
        "b": "x=y",
        "c": "",
        "d": FromFile("some/file"),
    }


def test_text_that_begins_like_a_file_is_given_quoted() -> None:
    assert parse_assignments(['a="@ada"']) == {"a": "@ada"}


@pytest.mark.parametrize("word", ["1", "=1", "a b=1", "--x=1", "1a=2", ""])
def test_word_that_is_no_assignment_is_refused(word: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no NAME=VALUE"):
        parse_assignments([word])


def test_name_given_twice_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="a is given twice"):
        parse_assignments(["a=1", "a=1"])


@pytest.mark.parametrize(("source", "params"), [('{"a": 1}', {"a": 1}), (b"[1, 2]", [1, 2])])
def test_params_are_an_object_or_an_array(source: bytes | str, params: Any) -> None:
    assert parse_params(source, "it") == params


@pytest.mark.parametrize("source", ["3", '"a"', "null", "{", "", b"\xff", "[" * 100_000, "\udcff"])
def test_other_params_are_refused_by_the_name_of_their_source(source: bytes | str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^line 7: "):
        parse_params(source, "line 7")


@pytest.mark.parametrize("seconds", [None, 0.001, 1e6])
def test_time_to_wait_is_positive(seconds: float | None) -> None:
    check_timeout(seconds)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_other_time_to_wait_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError, match="--timeout"):
        check_timeout(seconds)


def test_cpus_are_numbers() -> None:
    assert parse_cpus("0,1,10") == (0, 1, 10)


@pytest.mark.parametrize("text", ["", "a", "0,", "0-1", "-1", "²"])
def test_other_cpus_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--cpus"):
        parse_cpus(text)


def test_file_is_read_and_standard_input_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it").write_bytes(b"\x00\xff")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
    assert read_file(str(tmp_path / "it")) == b"\x00\xff"
    assert read_file("-") == b"typed"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"can't read .*/it: No such file"):
        read_file(str(tmp_path / "it"))


BYTES = {"type": "string", "contentEncoding": "base64"}
TEXT = {"type": "string"}
OPTIONAL_BYTES = {"anyOf": [BYTES, {"type": "null"}]}


@pytest.mark.parametrize(
    ("content", "schema", "value"),
    [
        (b"[1]", BYTES, b"[1]"),
        (b"[1]", OPTIONAL_BYTES, b"[1]"),
        (b"[1]", TEXT, "[1]"),
        (b"1", {"type": "integer"}, 1),
        (b"[1]", {}, [1]),
        (b"plain", {}, "plain"),
        (b"\xff", {}, b"\xff"),
    ],
)
def test_file_is_what_the_parameter_wants(
    content: bytes, schema: dict[str, Any], value: Any
) -> None:
    assert value_of_file("it", content, schema) == value


def test_file_that_is_no_text_is_refused_for_a_text() -> None:
    with pytest.raises(InvalidArgumentError, match="it is text, and its file is not"):
        value_of_file("it", b"\xff", TEXT)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("1", 1), ("800M", 800 * 2**20), ("1.5G", 3 * 2**29), ("64k", 65536)),
        *(("2MiB", 2**21), ("2MB", 2**21), ("10b", 10)),
    ],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "1T", "1 M", "much", "9" * 30, "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no size"):
        parse_size(text)


def test_bounds_are_those_by_default_but_for_what_was_said() -> None:
    assert make_bounds(queue=None, memory=None, kill_grace_s=None) == DEFAULT_BOUNDS
    bounds = make_bounds(queue=7, memory="1G", kill_grace_s=2.0)
    assert bounds == Bounds(
        queue_requests=7, memory_bytes=2**30, unread_bytes=2**28, kill_grace_s=2.0
    )


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"memory": "1M"}, {"kill_grace_s": -1.0}, {"kill_grace_s": 1e9}]
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        make_bounds(**{"queue": None, "memory": None, "kill_grace_s": None} | wrong)
