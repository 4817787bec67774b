"""Mirror of broker/wire/trace.py, and what TRACE.md says of it."""

from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire import trace
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.trace import (
    PARAMS_BYTES_MAX,
    PARAMS_MSGPACK,
    RECORD_BYTES_MAX,
    TRACE_FORMAT,
    Arrival,
    Lost,
    TraceRecord,
    TraceStart,
    count_calls,
    pack_record,
    read_trace,
    whole_records,
)

START = TraceStart(TRACE_FORMAT, "e1", 5, 6)
CALL = Arrival(7, 1, "shop.add", 20, -1, PARAMS_MSGPACK, Raw(b"\x92\x01\x02"))
CHUNK = Arrival(8, 2, "shop.add", 90, 3)
RECORDS: tuple[TraceRecord, ...] = (START, CALL, Lost(4), CHUNK)
FILE = b"".join(map(pack_record, RECORDS))


@pytest.mark.parametrize("size", [1, 7, len(FILE)])
def test_records_are_read_however_the_file_is_cut(size: int) -> None:
    pieces = [FILE[begin : begin + size] for begin in range(0, len(FILE), size)]
    assert list(read_trace(pieces, "t")) == list(RECORDS)


def test_a_torn_last_record_is_passed_over_wherever_it_is_torn() -> None:
    before = len(FILE) - len(pack_record(CHUNK))
    for end in range(before, len(FILE)):
        assert list(read_trace([FILE[:end]], "t")) == list(RECORDS[:-1])
        assert whole_records(FILE[:end]) == before
    assert whole_records(FILE) == len(FILE)


def test_calls_and_chunks_are_counted() -> None:
    assert count_calls(FILE) == 2
    assert count_calls(b"") == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"a line of text\n", "is damaged: "),
        (pack_record(CALL), "is no trace"),
        (pack_record(TraceStart("pronghorn-trace/9", "e", 1, 1)), "of format 'pronghorn-trace/9'"),
        (FILE + b"\x02\x00\x00\x00\xff\xff", "is damaged: "),
        (FILE + (RECORD_BYTES_MAX + 1).to_bytes(4, "little"), "is damaged: "),
    ],
)
def test_what_is_no_trace_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"t .*") as refused:
        list(read_trace([content], "t"))
    assert why in str(refused.value)


def test_the_document_has_the_figures_and_the_fields() -> None:
    text = (Path(trace.__file__).parent / "TRACE.md").read_text()
    for number in (PARAMS_BYTES_MAX, RECORD_BYTES_MAX):
        assert f"{number:,}" in text
    assert TRACE_FORMAT in text
    for kind in (TraceStart, Arrival, Lost):
        fields = ", ".join(kind.__struct_fields__)
        assert f"`[{kind.__struct_config__.tag}, {fields}]`" in text


def test_a_call_is_an_array_that_begins_with_its_kind() -> None:
    array = [2, 7, 1, "shop.add", 20, -1, 1, [1, 2]]
    assert msgspec.msgpack.decode(pack_record(CALL)[4:]) == array
