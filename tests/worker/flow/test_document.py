"""Reading text: values, places, and what is refused without harm."""

from typing import Any

import pytest

from pronghorn.worker.flow.document import (
    DefinitionError,
    Mark,
    check_value,
    dotted,
    read_document,
)
from pronghorn.worker.flow.limits import DEFINITION_BYTES_MAX, DEFINITION_NODES_MAX


def problems_of(text: str | bytes) -> list[str]:
    try:
        return [str(each) for each in read_document(text).problems]
    except DefinitionError as error:
        return [str(each) for each in error.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 1.5, true, null, '1', ~]", {"a": 1, "b": ["x", 1.5, True, None, "1", None]}),
        ("yes: on", {"yes": "on"}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 0x10", {"a": "0x10"}),
        ("a: 18446744073709551615", {"a": 18446744073709551615}),
        ("a: 99999999999999999999999", {"a": 1e23}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ('{"a": {"b": [1, "\\u00e4"]}}', {"a": {"b": [1, "ä"]}}),
        ("a: !!str 1", {"a": "1"}),
        ("", None),
    ],
)
def test_values(text: str, value: Any) -> None:
    document = read_document(text)
    assert (document.value, document.problems) == (value, ())
    assert read_document(text.encode()).value == value


def test_places_are_those_of_keys_and_elements() -> None:
    document = read_document("a:\n  - b: 1\n    c:\n      - x\n")
    assert document.mark(("a",)) == Mark(1, 1)
    assert document.mark(("a", 0, "b")) == Mark(2, 5)
    assert document.mark(("a", 0, "c", 0)) == Mark(4, 9)
    assert document.mark(("a", 0, "c", 7, "far")) == Mark(3, 5), "the innermost one around it"
    assert document.mark(()) == Mark(1, 1)


def test_dotted_path() -> None:
    assert dotted(("tasks", "a", "next", 0, "do", 1)) == "tasks.a.next[0].do[1]"
    assert dotted(()) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", ["4:3: b.c: given twice, the first time in line 3"]),
        ('{"a": 1, "a": 2}', ["1:10: a: given twice, the first time in line 1"]),
        ("a: !!python/name:os x", ["1:4: the tag tag:yaml.org,2002:python/name:os is not allowed"]),
        ("a: !x 1", ["1:4: the tag !x is not allowed"]),
        ("a: 1\n---\nb: 2", ["2:1: a second document begins here: one file holds one workflow"]),
        ("a: &x [*x]", ["1:8: there is no anchor &x, or this is within it"]),
        ("a: *x", ["1:4: there is no anchor &x, or this is within it"]),
        ("? [a]\n: 1", ["1:3: a list or mapping can't be a key"]),
        ("[" * 70, ["1:65: values are nested more than 64 deep"]),
    ],
)  # fmt: skip
def test_refused(text: str | bytes, expected: list[str]) -> None:
    assert problems_of(text) == expected


@pytest.mark.parametrize(
    "text", ["a: [1", "a: 'x", "a: b: c", "\x00", "\t- a", "a: @x", "[" * 5000]
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    (problem,) = problems_of(text)
    assert "not YAML" in problem or "nested" in problem


def test_what_is_no_utf8_is_refused() -> None:
    (problem,) = problems_of(b"a: \xff")
    assert problem.startswith("it is not UTF-8")


def test_large_document_is_refused_unread() -> None:
    text = "a: " + "x" * (10 << 20)
    assert problems_of(text) == [
        f"{len(text)} bytes are too many, the limit is {DEFINITION_BYTES_MAX}"
    ]


def test_anchors_multiply_nothing() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    (problem,) = problems_of("\n".join(lines))
    assert "more than 100000 values" in problem


def test_many_problems_are_cut_and_counted() -> None:
    error = DefinitionError(read_document("\n".join(["a: 1"] * 150)).problems)
    assert len(error.problems) == 100
    assert str(error).endswith("and 49 more")


@pytest.mark.parametrize("levels", [64, 65, 900])
def test_values_that_did_not_come_as_text_have_the_same_depth(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if levels % 2 else [value]
    if levels == 64:
        check_value(value)
        return
    with pytest.raises(DefinitionError, match="nested more than 64 deep"):
        check_value(value)


def test_values_that_did_not_come_as_text_have_the_same_number() -> None:
    check_value([0] * (DEFINITION_NODES_MAX - 1))
    many: list[Any] = [0] * 1_000
    for value in ([0] * DEFINITION_NODES_MAX, [many] * 1_000, [[many] * 100] * 1_000):
        with pytest.raises(DefinitionError, match="more than 100000 values"):
            check_value(value)
    many.append(many)
    with pytest.raises(DefinitionError, match=r"nested more than 64 deep|more than 100000"):
        check_value(many)
