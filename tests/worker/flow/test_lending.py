"""Mirror of worker/flow/lending.py: what goes to the workers by reference."""

from pathlib import Path
from typing import Any

import pytest
from lent import LONG, ROWS, shapes
from msgspec.msgpack import decode

from pronghorn.broker.wire.references import EXT_REFERENCE, reference_of
from pronghorn.broker.wire.values import encode_inline
from pronghorn.worker.flow.lending import Lending
from pronghorn.worker.flow.sharing import (
    LEAST_ALONE_BYTES,
    LEAST_BYTES,
    Sharing,
)
from pronghorn.worker.shared import SharedFolder, SharedValues, absent


@pytest.fixture
def sharing(tmp_path: Path) -> Sharing:
    return Sharing(SharedFolder(str(tmp_path)))


def test_what_items_have_in_common_goes_by_reference(sharing: Sharing, tmp_path: Path) -> None:
    short, words = list(range(10)), "x" * LEAST_BYTES
    inputs = [{"a": ROWS, "b": short, "c": words, "d": number, "e": None} for number in range(3)]
    with Lending(sharing, inputs) as lending:
        assert lending.refers
        assert shapes(lending) == [
            {"a": True, "b": short, "c": True, "d": number, "e": None} for number in range(3)
        ]
        files = sorted(tmp_path.iterdir())
        assert len(files) == 2
        assert inputs[0]["a"] is ROWS
    with Lending(sharing, inputs[1:]) as again:
        assert again.inputs == lending.inputs[1:]
    assert sorted(tmp_path.iterdir()) == files
    sharing.end()
    assert list(tmp_path.iterdir()) == []


def test_workers_find_what_was_written(sharing: Sharing, tmp_path: Path) -> None:
    with Lending(sharing, [{"a": ROWS}, {"a": ROWS}]) as lending:
        ext = decode(encode_inline(lending.inputs[0]))["a"]
    reference = reference_of(ext.code, ext.data)
    assert reference is not None
    assert decode(SharedValues(SharedFolder(str(tmp_path))).content(reference)) == ROWS
    sharing.end()


def test_a_request_refers_to_what_is_in_use_for_it_alone(tmp_path: Path) -> None:
    sharing = Sharing(SharedFolder(str(tmp_path)), count_max=1)
    payload = {"a": LONG}
    with Lending(sharing, [{"value": payload}, {"value": payload}]):
        pass
    with Lending(sharing, [{"value": payload}]) as lending:
        before = encode_inline(lending.inputs[0])
        assert lending.look(LEAST_ALONE_BYTES)  # what is in it goes by reference now
        assert encode_inline(lending.inputs[0]) != before
    sharing.end()


def test_items_that_have_another_value_keep_it(sharing: Sharing) -> None:
    other = list(ROWS)
    with Lending(sharing, [{"a": ROWS}, {"a": other}, {"b": 1}, {"a": ROWS}]) as lending:
        assert shapes(lending) == [{"a": True}, {"a": other}, {"b": 1}, {"a": True}]
    with Lending(sharing, [{"a": ROWS}, {"a": list(ROWS)}]) as lending:
        assert not lending.refers
    sharing.end()


def test_it_is_found_one_level_down(sharing: Sharing) -> None:
    inputs: list[dict[str, Any]] = [{"p": {"rows": ROWS, "n": n}, "q": 1} for n in range(2)]
    with Lending(sharing, inputs) as lending:
        assert shapes(lending) == [{"p": {"rows": True, "n": n}, "q": 1} for n in range(2)]
    deeper = [{"p": {"q": {"rows": ROWS}}} for _ in range(2)]
    with Lending(sharing, deeper) as lending:
        assert not lending.refers
    whole = {"rows": ROWS}
    with Lending(sharing, [{"p": whole}, {"p": whole}]) as lending:
        assert shapes(lending) == [{"p": True}] * 2
    with Lending(sharing, [whole, whole]) as lending:  # one input for all items
        assert shapes(lending) == [{"rows": True}] * 2
    sharing.end()


def test_a_task_s_input_is_looked_at_when_it_is_large(sharing: Sharing, tmp_path: Path) -> None:
    with Lending(sharing, [{"a": ROWS, "n": 1}]) as lending:
        assert not lending.look(LEAST_ALONE_BYTES - 1)
        assert not lending.look(LEAST_ALONE_BYTES)  # none of it is large alone
    with Lending(sharing, [{"a": LONG, "p": {"rows": LONG, "n": 1}}]) as lending:
        assert not lending.refers
        assert lending.look(LEAST_ALONE_BYTES)
        assert shapes(lending) == [{"a": True, "p": {"rows": True, "n": 1}}]
    with Lending(sharing, [{"p": {"rows": LONG}, "a": LONG}]) as lending:  # known by now
        assert shapes(lending) == [{"p": {"rows": True}, "a": True}]
    long = "x" * LEAST_ALONE_BYTES
    with Lending(sharing, [{"t": long}]) as lending:
        assert shapes(lending) == [{"t": True}]
    whole = {str(number): "x" * 1000 for number in range(100)}
    with Lending(sharing, [{"p": whole}]) as lending:
        assert lending.look(100_000)
        assert shapes(lending) == [{"p": True}]
    assert len(list(tmp_path.iterdir())) == 3
    with Lending(sharing, [{}]) as lending:
        assert not lending.look(LEAST_ALONE_BYTES)
    with Lending(sharing, []) as lending:
        assert not lending.look(LEAST_ALONE_BYTES)
    sharing.end()


def test_what_can_t_be_encoded_is_left_to_its_sender(sharing: Sharing) -> None:
    wrong = [object()] * LEAST_BYTES
    with Lending(sharing, [{"a": wrong}, {"a": wrong}]) as lending:
        assert lending.inputs == [{"a": wrong}] * 2


def test_arrays_are_values_too(sharing: Sharing) -> None:
    numpy = pytest.importorskip("numpy")
    large, small = numpy.zeros(LEAST_BYTES), numpy.zeros(2)
    with Lending(sharing, [{"a": large, "b": small}] * 2) as lending:
        assert [type(each) for each in lending.inputs[0].values()][1] is numpy.ndarray
        assert decode(encode_inline(lending.inputs[0]))["a"].code == EXT_REFERENCE
    sharing.end()


def test_a_reference_that_leads_nowhere_is_the_last(sharing: Sharing) -> None:
    error = absent(reference_of(EXT_REFERENCE, bytes(28)), OSError("gone"))  # type: ignore[arg-type]
    result = {"code": error.code, "outcome": "not_started", "retryable": True}
    with Lending(sharing, [{"a": ROWS}] * 2) as lending:
        assert not lending.withdraw({"code": error.code, "outcome": "not_started"})
        assert lending.refers
        assert lending.was_lost_on(result)
        assert lending.withdraw(result)
        assert lending.inputs == [{"a": ROWS}] * 2
        assert not lending.withdraw(result)
    with Lending(sharing, [{"a": ROWS}] * 2) as lending:
        assert not lending.refers
    sharing.end()
