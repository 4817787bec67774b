"""Mirror of broker/wire/link.py."""

import random
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import (
    BUFFERS_MAX,
    LENGTH,
    READ_BYTES_MAX,
    READ_BYTES_MIN,
    Advance,
    AdvanceKept,
    Alive,
    AskAlive,
    AskHistory,
    CancelNested,
    CancelRun,
    ChunkDone,
    Done,
    Emitted,
    Failed,
    FrameReader,
    History,
    MoreCredit,
    Nested,
    NestedDone,
    NestedFailed,
    Progressed,
    Ready,
    Recorded,
    Rest,
    RunCall,
    RunChunk,
    RunContext,
    RunHere,
    RunStream,
    Skipped,
    Stop,
    StreamError,
    ToBroker,
    ToWorker,
    TraceContext,
    Yielded,
    broker_end,
    encode_link,
    next_stream_bytes,
    pack,
    unwrap_json,
    worker_end,
    wrap_json,
)
from pronghorn.broker.wire.messages import ItemFailure

TO_WORKER: list[ToWorker] = [
    RunCall(token=9, slot=3, node=1, codec=0, params=Raw(b"\x80"), left_ms=2.5, buffers=0),
    RunChunk(token=10, slot=0, node=1, items=Raw(b"\x91\x80")),
    CancelRun(9),
    TraceContext(9, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    RunContext(9, "0000010000000001" + "ab" * 16, 2, 1 << 40 | 7),
    Stop(),
    NestedDone(id=4, value=Raw(b"\x03")),
    NestedFailed(4, "NODE_ERROR", "no", ErrorDetails(exception="ValueError")),
    RunHere(4),
    RunStream(9, 3, 1, 0, Raw(b"\x80"), takes_parts=True, items=8, bytes=9000, events=5),
    MoreCredit(9, 4, 4500, 1),
    AskAlive(),
    Recorded(9, "000003", has_history=True),
    AdvanceKept(9),
    History(9, Raw(b"\x90"), is_last=True),
]
FAILURE = ItemFailure(1, "NODE_ERROR", "no", ErrorDetails(outcome="executed"))
TO_BROKER: list[ToBroker] = [
    Ready(worker_id=2, pid=77, table_digest="d"),
    Done(token=9, value=Raw(b"\x03"), run_ns=1000),
    ChunkDone(10, Raw(b"\x92\x01\xc0"), run_ns=5, item_count=2, failures=(FAILURE,)),
    Failed(9, "NODE_ERROR", "no", ErrorDetails(exception="ValueError"), run_ns=8),
    Skipped(9),
    Nested(4, 9, "m.add", Raw(b"\x80"), left_ms=2.5, waits=True, depth=1),
    CancelNested(4),
    Yielded(9, Raw(b"\x03")),
    Progressed(9, 1.0, 2.0, "half"),
    Emitted(9, "found", Raw(b"\x03")),
    Alive(),
    Advance(9, Raw(b"\x90"), (("check", "succeeded"),), moved=True, asks=False),
    AskHistory(9, 0),
    Rest(9, 7.5),
]

frames = st.lists(st.binary(max_size=40), max_size=20)
cuts = st.lists(st.integers(0, 1000), max_size=30)


def stream_of(bodies: list[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(body)) + body for body in bodies)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(stream)) for place in at} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


def test_there_is_an_example_of_each() -> None:
    assert {type(message) for message in TO_WORKER} == set(get_args(ToWorker))
    assert {type(message) for message in TO_BROKER} == set(get_args(ToBroker))


def test_messages_survive_the_link() -> None:
    for sent, reader in ((TO_WORKER, worker_end()), (TO_BROKER, broker_end())):
        received = reader.feed(b"".join(pack(message) for message in sent))
        assert [encode_link(message) for message, _ in received] == [
            encode_link(message) for message in sent
        ]
        assert all(buffers == [] for _, buffers in received)


def test_buffers_follow_their_message_and_come_with_it() -> None:
    first = Done(1, Raw(b"\xc0"), 0, buffers=2)
    second = Done(2, Raw(b"\xc0"), 0)
    stream = pack(first, (b"one", memoryview(b"three"))) + pack(second)
    reader = broker_end()
    received = [one for byte in stream for one in reader.feed(bytes([byte]))]
    assert [(message.token, buffers) for message, buffers in received] == [  # type: ignore[union-attr]
        (1, [b"one", b"three"]),
        (2, []),
    ]


@given(st.lists(st.lists(st.binary(max_size=9), max_size=3), max_size=8), cuts)
def test_each_message_has_its_own_buffers_wherever_the_stream_is_cut(
    all_buffers: list[list[bytes]], at: list[int]
) -> None:
    stream = b"".join(
        pack(Done(token, Raw(b"\xc0"), 0, len(buffers)), buffers)
        for token, buffers in enumerate(all_buffers)
    )
    reader = broker_end()
    received = [one for piece in cut(stream, at) for one in reader.feed(piece)]
    assert [(message.token, [*buffers]) for message, buffers in received] == list(  # type: ignore[union-attr]
        enumerate(all_buffers)
    )


def test_a_message_read_alone_waits_for_its_buffers() -> None:
    reader = broker_end()
    stream = pack(Done(1, Raw(b"\xc0"), 0, buffers=1), (b"one",))
    head = len(stream) - LENGTH.size - 3
    assert reader.feed(stream[:head]) == []
    [(_, buffers)] = reader.feed(stream[head:])
    assert buffers == [b"one"]


def test_a_buffer_may_be_of_wider_elements() -> None:
    wide = memoryview(bytes(16)).cast("Q")
    [(_, buffers)] = broker_end().feed(pack(Done(1, Raw(b"\xc0"), 0, buffers=1), (wide,)))
    assert buffers == [bytes(16)]


def test_json_travels_wrapped() -> None:
    text = b'{"a":1}'
    message = RunCall(token=1, slot=0, node=0, codec=1, params=wrap_json(text), left_ms=5.0)
    [(received, _)] = worker_end().feed(pack(message))
    assert isinstance(received, RunCall)
    assert unwrap_json(received.params) == text
    assert received.left_ms == 5.0


@given(frames, cuts)
def test_any_cut_of_a_stream_gives_the_same_frames(bodies: list[bytes], at: list[int]) -> None:
    reader = FrameReader()
    pieces = cut(stream_of(bodies), at)
    assert [frame for piece in pieces for frame in reader.feed(piece)] == bodies


@given(frames)
def test_a_stream_fed_byte_by_byte_gives_the_same_frames(bodies: list[bytes]) -> None:
    reader = FrameReader()
    received: list[bytes] = []
    for byte in stream_of(bodies):
        received += reader.feed(bytes([byte]))
    assert received == bodies


def test_a_frame_comes_as_soon_as_it_is_whole() -> None:
    reader = FrameReader()
    stream = stream_of([b"first", b"second"])
    assert reader.feed(stream[:8]) == []
    assert reader.feed(stream[8:9]) == [b"first"]
    assert reader.feed(b"") == []
    assert reader.feed(stream[9:]) == [b"second"]


def test_a_large_frame_in_small_pieces_costs_its_length_not_its_square() -> None:
    body = bytes(4_000_000)
    stream = stream_of([body])
    size = random.Random(1).randint(900, 1100)
    reader = FrameReader()
    begun = time.process_time()
    received: list[bytes] = []
    for start in range(0, len(stream), size):
        received += reader.feed(stream[start : start + size])
    assert received == [body]
    assert time.process_time() - begun < 0.25  # 6 ms; 1.5 s if each piece copied what came before


@pytest.mark.parametrize("reader", [worker_end(), broker_end()])
def test_a_link_that_is_out_of_step_raises(reader: object) -> None:
    with pytest.raises(ValueError, match=r"Invalid value|Expected"):
        reader.feed(LENGTH.pack(2) + b"\x91\x63")  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut_at", [4, 5, 50], ids=["the length", "a byte more", "a half"])
def test_a_frame_beyond_the_limit_is_not_waited_for(cut_at: int) -> None:
    reader = FrameReader(frame_bytes_max=100)
    assert reader.feed(stream_of([b"x" * 100])) == [b"x" * 100]
    long = stream_of([b"y" * 101])
    assert reader.feed(long[:3]) == []
    with pytest.raises(StreamError, match="a frame of 101 bytes is announced"):
        reader.feed(long[3:cut_at])
    reader = FrameReader(frame_bytes_max=100)
    with pytest.raises(StreamError, match="a frame of 101 bytes is announced"):
        reader.feed(stream_of([b"before"]) + long[:cut_at])


def test_a_reader_tells_how_much_is_missing() -> None:
    reader = FrameReader()
    assert reader.missing == 0
    reader.feed(LENGTH.pack(1000)[:1])
    assert reader.missing == 3, "of the length"
    reader.feed(LENGTH.pack(1000)[1:] + b"x")
    assert reader.missing == 999
    reader.feed(b"x" * 99)
    assert reader.missing == 900
    assert reader.feed(b"x" * 900) == [b"x" * 1000]
    assert reader.missing == 0


def test_little_is_read_of_a_stream_unless_its_frames_are_large() -> None:
    least, most = READ_BYTES_MIN, READ_BYTES_MAX
    small = [b"x" * 100] * 50
    assert next_stream_bytes(least, 100, 0, small[:1]) == least, "one call at a time"
    assert next_stream_bytes(least, least, 60, small) < 2 * least, "a flood of small ones"
    assert next_stream_bytes(least, least, 50_000, []) == 50_000, "the rest of a large one"
    assert next_stream_bytes(least, least, 10 * most, []) == most
    large = [b"x" * 70_000]
    assert next_stream_bytes(70_000, 70_000, 0, large) == 70_000 + least, "the next like it"
    assert next_stream_bytes(70_000 + least, 70_004, 0, large) == 70_000 + least
    assert next_stream_bytes(most, 50, 0, small[:1]) < 2 * least, "small ones again"
    assert next_stream_bytes(most, 50, 60, []) == least


# --- hostile input -------------------------------------------------------------------------------


@given(st.binary(max_size=200), cuts)
def test_random_bytes_are_frames_or_a_stream_error(data: bytes, at: list[int]) -> None:
    reader = FrameReader(frame_bytes_max=100)
    found: list[bytes] = []
    with suppress(StreamError):
        for piece in cut(data, at):
            found += reader.feed(piece)
    assert data.startswith(stream_of(found))
    assert sum(map(len, reader.pieces)) <= len(data)


@given(st.data(), st.sampled_from([*TO_BROKER, *TO_WORKER]), cuts)
def test_damaged_messages_are_messages_or_one_of_the_errors(
    data: st.DataObject, message: Any, at: list[int]
) -> None:
    body = bytearray(encode_link(message))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    stream = stream_of([bytes(body[: data.draw(st.integers(0, len(body)))]), b"next", b"\xc1"])
    for reader, kinds in ((broker_end(), get_args(ToBroker)), (worker_end(), get_args(ToWorker))):
        with suppress(*DECODE_ERRORS):
            for piece in cut(stream, at):
                for found, buffers in reader.feed(piece):
                    assert isinstance(found, kinds)
                    assert len(buffers) == getattr(found, "buffers", 0)


@pytest.mark.parametrize("count", [-1, BUFFERS_MAX + 1, 2**63])
@pytest.mark.parametrize("behind", [b"", LENGTH.pack(1) + b"x"])
def test_buffers_without_number_are_a_stream_error(count: int, behind: bytes) -> None:
    body = encode_link(Done(token=9, value=Raw(b"\x03"), run_ns=1, buffers=count))
    with pytest.raises(StreamError, match=f"a message with {count} buffers is announced"):
        broker_end().feed(stream_of([body]) + behind)


@given(st.binary(max_size=100))
def test_what_is_no_json_in_a_link_is_one_of_the_errors(data: bytes) -> None:
    with suppress(*DECODE_ERRORS):
        assert wrap_json(unwrap_json(Raw(data)))
