"""Mirror of broker/recording.py: the broker and who keeps it are played."""

import socket
from collections.abc import Iterator
from time import monotonic

import pytest
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.events import Event, Origin, Probed, Received, ReceivedJson
from pronghorn.broker.recording import (
    BATCH_BYTES,
    BATCH_S,
    PACKET_BYTES_MAX,
    WAITING_BYTES_MAX,
    Recording,
)
from pronghorn.broker.wire.jsonrpc import JsonRequest
from pronghorn.broker.wire.link import CODEC_JSON, unwrap_json
from pronghorn.broker.wire.messages import Call, MapChunk, Ping
from pronghorn.broker.wire.references import TOKEN_BYTES, Reference
from pronghorn.broker.wire.trace import (
    PARAMS_BYTES_MAX,
    PARAMS_JSON,
    PARAMS_LEFT_OUT,
    PARAMS_MSGPACK,
    Arrival,
    Lost,
    TraceRecord,
    TraceStart,
    read_trace,
)

NAMES = {"add": "shop.add", "shop.add": "shop.add", "pronghorn.stats": "pronghorn.stats"}
PARAMS = Raw(encode([1, 2]))


class Played:
    """A recording, what it has handed on, and the end of the socket that it writes to."""

    def __init__(self, *, sizes_only: bool = False) -> None:
        ours, self.reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader.setblocking(False)
        self.handed: list[tuple[Event, float]] = []
        self.endings = 0
        self._read: list[bytes] = []
        self.recording = Recording(
            ours,
            "e1",
            sizes_only=sizes_only,
            full_name=NAMES.get,
            handle=lambda event, now: self.handed.append((event, now)),
            ended=self._ended,
        )

    def _ended(self) -> None:
        self.endings += 1

    def call(
        self, peer: bytes = b"a", node: str = "add", params: Raw = PARAMS, now: float = 1.5
    ) -> Received:
        event = Received(peer, Call(1, node, params), 20)
        self.recording.take(event, now)
        return event

    def packets(self) -> Iterator[bytes]:
        while True:
            try:
                yield self.reader.recv(1 << 20)
            except BlockingIOError:
                return

    def records(self) -> list[TraceRecord]:
        """Read all that was recorded so far, in as many turns as that takes."""
        self.recording.flush()
        while packets := list(self.packets()):
            self._read += packets
            self.recording.flush()
        return list(read_trace(self._read, "t"))

    def arrivals(self) -> list[Arrival]:
        return [record for record in self.records() if isinstance(record, Arrival)]


@pytest.fixture
def played() -> Iterator[Played]:
    played = Played()
    yield played
    played.recording.close()
    played.reader.close()


def test_calls_are_written_down_and_handed_on(played: Played) -> None:
    event = played.call()
    chunk = Received(b"b", MapChunk(1, "shop.add", Raw(encode([[1, 2], [3, 4]]))), 30)
    played.recording.take(chunk, 1.6)
    played.call(b"a")
    start, first, second, third = played.records()
    assert isinstance(start, TraceStart)
    assert start.epoch == "e1"
    assert first == Arrival(1_500_000_000, 1, "shop.add", 20, -1, PARAMS_MSGPACK, PARAMS)
    assert isinstance(second, Arrival)
    assert (second.client, second.items, second.size) == (2, 2, 30)
    assert isinstance(third, Arrival)
    assert third.client == 1
    assert played.handed[:2] == [(event, 1.5), (chunk, 1.6)]


def test_json_stays_as_it_came(played: Played) -> None:
    request = JsonRequest(jsonrpc="2.0", id=1, method="add", params=Raw(b'{"a": 1}'))
    played.recording.take(ReceivedJson(b"a", request, 40, Origin((), CODEC_JSON, False, 0)), 2.0)
    (arrival,) = played.arrivals()
    assert arrival.codec == PARAMS_JSON
    assert unwrap_json(arrival.params) == b'{"a": 1}'


def test_what_is_no_call_of_a_node_is_handed_on_alone(played: Played) -> None:
    played.call(node="pronghorn.stats")
    played.call(node="nowhere")
    for event in (Received(b"a", Ping(1), 5), Probed(b"a")):
        played.recording.take(event, 1.0)
    assert played.arrivals() == []
    assert len(played.handed) == 4


def test_large_parameters_and_buffers_leave_only_their_size(played: Played) -> None:
    played.call(params=Raw(encode(["x" * PARAMS_BYTES_MAX])))
    played.recording.take(Received(b"a", Call(1, "add", PARAMS), 70_000, None, [b"x" * 65536]), 1.0)
    assert [each.codec for each in played.arrivals()] == [PARAMS_LEFT_OUT] * 2


def test_a_reference_to_a_large_value_leaves_only_the_size(played: Played) -> None:
    """Its file is gone when the trace is replayed."""
    reference = Reference(7, bytes(TOKEN_BYTES), 1 << 20).encode()
    played.call(params=Raw(encode({"rows": Raw(reference)})))
    (arrival,) = played.arrivals()
    assert (arrival.codec, arrival.size) == (PARAMS_LEFT_OUT, 20)


def test_sizes_alone_if_that_is_wanted() -> None:
    played = Played(sizes_only=True)
    played.call()
    (arrival,) = played.arrivals()
    assert (arrival.codec, arrival.size) == (PARAMS_LEFT_OUT, 20)
    played.recording.close()
    played.reader.close()


def test_a_batch_waits_for_its_time_unless_it_is_large(played: Played) -> None:
    assert played.recording.next_due() < float("inf")  # the start has left
    assert len(list(played.packets())) == 1
    assert played.recording.next_due() == float("inf")
    later = monotonic() + 10
    played.call(now=later)
    assert played.recording.next_due() == later + BATCH_S
    while not (packets := list(played.packets())):
        played.call(params=Raw(encode(["x" * 20_000])), now=later)
    assert len(packets) == 1
    assert BATCH_BYTES <= len(packets[0]) <= PACKET_BYTES_MAX


def test_what_nobody_reads_is_bounded_and_counted(played: Played) -> None:
    large = Raw(encode(["x" * 60_000]))
    count = 2 * WAITING_BYTES_MAX // 60_000
    for _ in range(count):
        played.call(params=large)
    assert len(played.handed) == count
    before = played.records()
    played.call()
    lost, last = played.records()[len(before) :]
    assert isinstance(lost, Lost)
    assert lost.count + len(before) - 1 == count
    assert isinstance(last, Arrival)


def test_the_end_of_who_keeps_it_is_told_once(played: Played) -> None:
    played.reader.close()
    played.recording.flush()
    played.call()
    played.recording.flush()
    assert played.endings == 1
    assert len(played.handed) == 1
