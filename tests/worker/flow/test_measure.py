"""Plain values: what is kept, what is turned, what is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest
from markupsafe import Markup

from pronghorn.worker.flow import measure
from pronghorn.worker.flow.measure import SizeError, plain, text_of


@pytest.mark.parametrize(
    "value",
    [None, True, 1, -(1 << 63), (1 << 64) - 1, 1.5, "text", b"bytes", [], {}, [1, {"a": []}]],
)
def test_plain_value_is_the_same_object(value: Any) -> None:
    assert plain(value) is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ({"a": (1,)}, {"a": [1]}),
        ([iter([1, 2])], [[1, 2]]),
        ({"a": 1}.keys(), ["a"]),
        (Markup("<b>"), "<b>"),
    ],
)
def test_others_become_plain(value: Any, expected: Any) -> None:
    made = plain(value)
    assert made == expected
    assert type(made) is type(expected)


def test_time_stays_what_it_is() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert plain([moment]) == [moment]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1 << 64, "does not fit into 64 bits"),
        (print, "the function print itself: call it"),
        (object(), "'object', which is no value"),
        ({1: 2}, "only text can be one"),
        (1j, "'complex'"),
    ],
)
def test_what_is_no_value_is_refused(value: Any, message: str) -> None:
    with pytest.raises(SizeError, match=message):
        plain(value)


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(SizeError, match="nested more than 64 deep"):
        plain(value)


def test_value_that_is_large_by_sharing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ELEMENTS_MAX", 10_000)
    value: Any = ["x"] * 1000
    for _ in range(4):
        value = [value] * 100
    with pytest.raises(SizeError, match="too long"):
        plain(value)


def test_endless_iterator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ELEMENTS_MAX", 1000)

    def endless() -> Any:
        while True:
            yield 1

    with pytest.raises(SizeError, match="1001 elements"):
        plain(endless())


def test_text_of_values_is_that_of_str() -> None:
    assert [text_of(each) for each in ("a", 1, 1.5, None, [1, "b"])] == [
        "a", "1", "1.5", "None", "[1, 'b']",
    ]  # fmt: skip
