"""Mirror of broker/run_replies.py."""

from typing import Any

import msgspec
import pytest
from journal_records import DEATH, FIRST, SECRET, accepted, ended
from msgspec import Raw

from pronghorn.broker.journal.fold import advance
from pronghorn.broker.journal.record import (
    AttemptLost,
    Record,
    Reopened,
    Started,
    TaskDone,
)
from pronghorn.broker.run_replies import CONVERTED_BYTES_MAX, event_of, info_of, reply_value
from pronghorn.broker.wire.errors import UnimplementedError
from pronghorn.broker.wire.link import CODEC_JSON, CODEC_MSGPACK, wrap_json
from pronghorn.broker.wire.values import encode_value

OPEN = advance(None, FIRST, accepted(key="k"))


def replied(value: Raw, codec: int, *, as_json: bool, buffers: Any = ()) -> Any:
    return reply_value(value, buffers, codec=codec, as_json=as_json, node="m.add")


def test_the_id_of_a_run_has_its_number_and_its_secret() -> None:
    info = info_of(OPEN, SECRET)
    assert info.id == f"{FIRST:016x}{SECRET.hex()}"
    assert (info.node, info.status, info.key, info.attempt) == ("shop.sell", "open", "k", 1)


@pytest.mark.parametrize(
    ("record", "event", "more"),
    [
        (accepted(), "accepted", {}),
        (Started(1, 1, 2, 7), "started", {"attempt": 2}),
        (AttemptLost(1, 1, 1, "signal 9", 7), "lost", {"cause": "signal 9"}),
        (TaskDone(1, 1, 1, 7, first=3, count=2), "part", {"first": 3, "count": 2}),
        (ended(OPEN, "done"), "ended", {"status": "done"}),
        (
            ended(OPEN, "failed"),
            "ended",
            {"status": "failed", "code": DEATH.code, "message": DEATH.message},
        ),
        (Reopened(1, 1, 7), "reopened", {}),
    ],
)
def test_each_record_is_an_event(record: Record, event: str, more: dict[str, Any]) -> None:
    told = msgspec.to_builtins(event_of(9, record))
    assert told == {"seq": 9, "event": event, "at_ns": record.at_ns, **more}


def test_a_result_is_told_as_it_is_in_its_own_language() -> None:
    value = Raw(b"\xd4\x01\x00")
    assert replied(value, CODEC_MSGPACK, as_json=False, buffers=(b"x",)) == (value, (b"x",))
    assert replied(wrap_json(b"[1, 2]"), CODEC_JSON, as_json=True) == (Raw(b"[1, 2]"), ())


def test_a_result_is_converted_where_another_language_is_spoken() -> None:
    body, buffers = encode_value(b"\0" * 100_000)
    assert buffers
    value, left = replied(Raw(body), CODEC_MSGPACK, as_json=True, buffers=buffers)
    assert (len(msgspec.json.decode(value)), left) == (133_336, ())  # base64
    value, _ = replied(wrap_json(b'{"a":null}'), CODEC_JSON, as_json=False)
    assert msgspec.msgpack.decode(value) == {"a": None}


def test_what_is_too_large_or_can_not_be_converted_is_told() -> None:
    text = msgspec.json.encode("x" * CONVERTED_BYTES_MAX)
    large = Raw(msgspec.msgpack.encode("x" * CONVERTED_BYTES_MAX))
    for value, codec, as_json in (
        (wrap_json(text), CODEC_JSON, False),
        (large, CODEC_MSGPACK, True),
        (Raw(b"\xd4\x01\x00"), CODEC_MSGPACK, True),  # its buffer is missing
    ):
        with pytest.raises(UnimplementedError) as raised:
            replied(value, codec, as_json=as_json)
        assert raised.value.details.outcome == "executed"
