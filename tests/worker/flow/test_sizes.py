"""Estimates of sizes: near what travels, at a cost that is bounded."""

from typing import Any

import msgspec
import pytest

from pronghorn.worker.flow.sizes import size_of

ROW = {"id": 12_345, "name": "some name or other", "tags": ["a", "b"], "price": 1.5}


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 7, 1000, -(1 << 40), 1.5, "", "text", "ü" * 100, b"\x00" * 100),
        *([], [1] * 10_240, ["x" * 10_240] * 500, [[1] * 1000] * 100),
        *({}, {"a": 1}, {f"k{number:04}": 0.5 for number in range(2000)}),
        *(ROW, [ROW] * 1000, {"rows": [ROW] * 1000, "total": 1000}),
        [[[[[["deep"]]]]]],
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_it_is_near_what_travels(value: Any) -> None:
    travels = len(msgspec.msgpack.encode(value))
    assert travels * 0.8 - 4 <= size_of(value) <= travels * 1.2 + 4


def test_few_elements_are_looked_at_however_many_there_are() -> None:
    looked_at = 0

    class Counting:
        @property
        def nbytes(self) -> int:
            nonlocal looked_at
            looked_at += 1
            return 8

    one = Counting()
    nested: Any = [one] * 200
    for _ in range(6):
        nested = [nested] * 200
    assert size_of(nested) > 8 * 200**6
    assert looked_at <= 192
    assert size_of({str(number): one for number in range(5000)}) > 8 * 5000
    assert looked_at <= 192 + 16


def test_an_array_has_the_bytes_of_its_elements() -> None:
    numpy = pytest.importorskip("numpy")
    assert size_of(numpy.zeros(1000)) == 8000
    assert size_of([numpy.zeros(10)] * 2) == 161
