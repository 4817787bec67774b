"""Mirror of worker/streaming.py: parts as messages, sent or collected."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import NodeError
from pronghorn.broker.wire.limits import BUFFER_BYTES_MIN, COLLECTED_PARTS_MAX, KIB
from pronghorn.broker.wire.link import CODEC_MSGPACK, Buffer, Done, RunCall, RunStream, Yielded
from pronghorn.worker import node
from pronghorn.worker.dispatch import DispatchTable, Entry
from pronghorn.worker.streaming import PartWriter, Steps

CALL = RunCall(1, 0, 0, CODEC_MSGPACK, Raw(b"\xc0"))


def entry_of(function: Any) -> Entry:
    return DispatchTable.of({"nodes.it": node(function)}).entries[0]


@node
def rows() -> Any:
    yield 1


class Sent:
    """A writer, and what it has sent."""

    def __init__(self, *, items: int = 10, bytes_: int = 10**6, limit: int = 200 * KIB) -> None:
        self.sent: list[tuple[Yielded, Sequence[Buffer]]] = []
        run = RunStream(
            *(1, 0, 0, CODEC_MSGPACK, Raw(b"\xc0")), takes_parts=True, items=items, bytes=bytes_
        )
        self.writer = PartWriter(entry_of(rows), run, limit, lambda *one: self.sent.append(one))


def test_a_part_is_sent_and_takes_credit() -> None:
    sent = Sent(items=2)
    sent.writer.put("a")
    assert sent.sent == [(Yielded(1, Raw(encode("a"))), ())]
    assert sent.writer.ready
    sent.writer.put("b")
    assert not sent.writer.ready
    sent.writer.more(1, 0)
    assert sent.writer.ready


def test_large_values_travel_in_buffers_and_count_with_them() -> None:
    sent = Sent(bytes_=BUFFER_BYTES_MIN)
    value = bytes(BUFFER_BYTES_MIN)
    sent.writer.put(value)
    ((message, buffers),) = sent.sent
    assert (message.buffers, list(buffers)) == (1, [value])
    assert not sent.writer.ready


def test_a_part_over_the_limit_is_refused() -> None:
    sent = Sent(limit=10)
    with pytest.raises(NodeError, match="part 0 has 12 bytes, the limit is 10") as refused:
        sent.writer.put("x" * 11)
    assert refused.value.details.limit == 10
    assert sent.sent == []


def test_a_result_over_the_limit_is_refused() -> None:
    message, _ = Sent(limit=10).writer.end("x" * 11)
    assert "the result has 12 bytes" in getattr(message, "message", "")


def test_so_many_parts_are_collected() -> None:
    writer = PartWriter(entry_of(rows), CALL, 10**9, lambda *one: None)
    for number in range(COLLECTED_PARTS_MAX):
        writer.put(number % 7)
    with pytest.raises(NodeError, match=f"more than {COLLECTED_PARTS_MAX} parts"):
        writer.put(0)
    message, _ = writer.end("is dropped")
    assert isinstance(message, Done)
    assert message.value == Raw(encode([number % 7 for number in range(COLLECTED_PARTS_MAX)]))


def test_a_generator_that_never_began_has_nothing_to_close() -> None:
    writer = PartWriter(entry_of(rows), CALL, 100, lambda *one: None)
    steps = Steps(entry_of(rows), None, None, writer)
    steps.close()
