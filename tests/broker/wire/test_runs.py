"""Mirror of broker/wire/runs.py."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.journal.record import Status
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.runs import (
    RUN_CALLS,
    START,
    AskEvents,
    AskStatus,
    RunStatus,
    StartRun,
    decode_of_run,
    decode_start,
)
from pronghorn.broker.wire.table import BUILTIN_PREFIX


def test_calls_have_names_of_our_own() -> None:
    assert len(RUN_CALLS) == 6
    assert all(name.startswith(BUILTIN_PREFIX) for name in (START, *RUN_CALLS))


def test_a_status_is_that_of_the_journal() -> None:
    assert RunStatus == Status


@pytest.mark.parametrize("as_json", [False, True])
def test_a_start_keeps_its_params_as_they_are(as_json: bool) -> None:
    codec: Any = msgspec.json if as_json else msgspec.msgpack
    given = {"node": "add", "params": {"a": [1]}, "key": "k", "durability": "batched"}
    start = decode_start(Raw(codec.encode(given)), as_json=as_json)
    assert start == StartRun("add", start.params, "k", "batched")
    assert codec.decode(start.params) == {"a": [1]}
    assert decode_start(Raw(codec.encode({"node": "add"})), as_json=as_json).key is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "missing required field `node`"),
        ({"node": 1}, "Expected `str`, got `int` - at `$.node`"),
        ({"node": "add", "durability": "none"}, "durability"),
        ({"node": "add", "keys": 1}, "unknown field `keys`"),
        (["add"], "Expected `object`, got `array`"),
    ],
)
def test_what_a_start_does_not_take_is_told(given: Any, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        decode_start(Raw(msgspec.msgpack.encode(given)), as_json=False)
    assert told in raised.value.message


def test_questions_are_decoded_by_their_names() -> None:
    params = Raw(msgspec.msgpack.encode(["ab", 3, False]))
    asked = decode_of_run("pronghorn.run.events", params, as_json=False)
    assert asked == AskEvents("ab", 3, False)
    params = Raw(b'{"id":"ab"}')
    assert decode_of_run("pronghorn.run.status", params, as_json=True) == AskStatus("ab")
