"""Mirror of broker/streams.py: who connects, what comes, what leaves, and who has to go."""

import os
import select
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from descriptors import descriptors_left
from msgspec.msgpack import encode
from trees import PATIENCE_S

from pronghorn.broker.events import Event, Malformed, Probed, Received
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.poller import Poller
from pronghorn.broker.streams import (
    ALONE_S,
    EVENTS_ALONE,
    EVENTS_PER_VISIT,
    Listener,
    Stream,
    Streams,
    Visitors,
)
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, KIB, MIB, Limits
from pronghorn.broker.wire.link import FrameReader

LIMITS = Limits(request_bytes=4 * KIB, result_bytes=4 * KIB, grant_bytes=8 * KIB)
UNREAD_BYTES = 16 * MIB
FRAME_BYTES_MAX = LIMITS.socket_message_bytes
CALL = encode([35, 1, "add", [1, 2]])


def frame(data: bytes) -> bytes:
    return pack("<I", len(data)) + data


class Client:
    """The other end of one stream."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.settimeout(PATIENCE_S)
        self._reader = FrameReader()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(map(frame, frames)))

    def read(self) -> list[bytes]:
        """Read once; nothing at the end."""
        return self._reader.feed(self.socket.recv(MIB))

    def read_to_end(self) -> list[bytes]:
        """Read to the end, which has to come."""
        frames: list[bytes] = []
        with suppress(ConnectionResetError):  # the broker has not read all
            while data := self.socket.recv(MIB):
                frames += self._reader.feed(data)
        return frames


class Broker:
    """What streams need around them; tells what came in as the server would."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "broker.sock.stream")
        self.poller = Poller()
        self.events: list[Event] = []
        self.gone: list[Stream] = []
        self.clients: list[Client] = []
        self.streams = Streams(
            [self.path],
            limits=LIMITS,
            unread_bytes=UNREAD_BYTES,
            ingress=Ingress(LIMITS),
            poller=self.poller,
            accepted=lambda stream: self.events.append(Probed(stream.peer)),
            read=self.read,
        )

    def read(self, stream: Stream) -> None:
        if stream.rest:
            return
        self.events += stream.receive()
        if not stream.alive:
            self.gone.append(stream)
            self.streams.drop(stream)

    def turn(self) -> None:
        rests = [stream for stream in self.streams.by_peer.values() if stream.rest]
        for fd, _ in self.poller.poll(0, 64):
            self.poller.handlers[fd]()
        for stream in rests:
            self.events += stream.take(EVENTS_PER_VISIT)

    def turn_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            rest = any(stream.rest for stream in self.streams.by_peer.values())
            assert rest or self.poller.poll(PATIENCE_S, 1), "nothing happens"
            self.turn()

    def client(self) -> tuple[Client, Stream]:
        """Connect; return both ends."""
        client = Client(self.path)
        self.clients.append(client)
        known = set(self.streams.by_peer)
        self.turn_until(lambda: set(self.streams.by_peer) - known)
        [peer] = set(self.streams.by_peer) - known
        assert self.events.pop() == Probed(peer)
        return client, self.streams.by_peer[peer]

    def close(self) -> None:
        for client in self.clients:
            client.socket.close()
        self.streams.close_all()
        self.streams.close()
        self.poller.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.streams.open()
    yield broker
    broker.close()
    assert list(tmp_path.iterdir()) == []


def received(events: list[Event]) -> list[Any]:
    """The ids of requests, and the errors of what was none."""
    return [
        event.error.code if isinstance(event, Malformed) else event.message.id  # type: ignore[union-attr]
        for event in events
        if isinstance(event, (Received, Malformed))
    ]


# --- listening ----------------------------------------------------------------------------------


def test_the_file_is_its_user_s_alone_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock.stream"
    listener = Listener(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()


def test_the_file_of_a_broker_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock.stream"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    listener = Listener(str(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock.stream"
    path.write_text("precious")
    with pytest.raises(InvalidArgumentError, match=f"can't listen at {path}: .*in use"):
        Listener(str(path))
    assert path.read_text() == "precious"


def test_where_nothing_can_be_made_nothing_is_left(tmp_path: Path) -> None:
    good, bad = str(tmp_path / "good"), str(tmp_path / "none" / "bad")
    with pytest.raises(InvalidArgumentError, match=f"can't listen at {bad}"):
        Streams(
            [good, bad],
            limits=LIMITS,
            unread_bytes=UNREAD_BYTES,
            ingress=Ingress(LIMITS),
            poller=Poller(),
            accepted=lambda stream: None,
            read=lambda stream: None,
        )
    assert list(tmp_path.iterdir()) == []


def test_who_connects_before_it_is_open_waits(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.clients += [Client(broker.path) for _ in range(3)]
    broker.turn()
    assert broker.events == []
    broker.streams.open()
    broker.turn_until(lambda: len(broker.events) == 3)
    assert len({event.peer for event in broker.events if isinstance(event, Probed)}) == 3
    broker.close()


def test_many_who_connect_at_once_are_accepted_by_and_by(broker: Broker) -> None:
    broker.clients += [Client(broker.path) for _ in range(100)]
    broker.turn()
    assert 0 < len(broker.streams.by_peer) < 100
    broker.turn_until(lambda: len(broker.streams.by_peer) == 100)


def test_no_two_brokers_know_their_clients_by_the_same_bytes(tmp_path: Path) -> None:
    peers: list[bytes] = []
    for name in "one", "two":
        (tmp_path / name).mkdir()
        broker = Broker(tmp_path / name)
        broker.streams.open()
        peers += [stream.peer for _, stream in (broker.client(), broker.client())]
        broker.close()
    assert len({peer[:8] for peer in peers}) == 2, "they can't be guessed"
    assert len(set(peers)) == 4


def test_who_comes_when_there_are_no_descriptors_left_is_turned_away(broker: Broker) -> None:
    good, stream = broker.client()
    late = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for each in late:
        each.connect(broker.path)
        each.settimeout(PATIENCE_S)
    with descriptors_left(1):
        for _ in range(5):
            broker.turn()
    assert len(broker.streams.by_peer) == 2
    assert select.select(late, [], [], 0)[0] == late[1:], "those are told so"
    assert [each.recv(1) for each in late[1:]] == [b"", b""]
    for each in late:
        each.close()
    good.send(CALL)
    broker.turn_until(lambda: received(broker.events) == [1])
    assert stream.alive


def test_who_has_gone_before_it_was_accepted_harms_nobody(broker: Broker) -> None:
    for _ in range(5):
        client = Client(broker.path)
        client.send(CALL)
        client.socket.close()
    broker.turn_until(lambda: len(broker.gone) == 5)
    assert received(broker.events) == [1] * 5
    assert broker.streams.by_peer == {}


# --- reading ------------------------------------------------------------------------------------


def test_frames_are_parsed_whatever_the_cuts(broker: Broker) -> None:
    client, _ = broker.client()
    for byte in frame(CALL) + frame(b"garbage"):
        client.socket.send(bytes([byte]))
        broker.turn()
    client.send(CALL, CALL, encode([35, 2, "echo", [b"x" * 3000]]))
    broker.turn_until(lambda: len(broker.events) == 5)
    assert received(broker.events) == [1, "PROTOCOL_ERROR", 1, 1, 2]


def test_one_flood_leaves_room_for_others(broker: Broker) -> None:
    flood, stream = broker.client()
    other, _ = broker.client()
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(flood.send, *[CALL] * 50_000)
        broker.turn_until(lambda: broker.events)
        other.send(encode([35, 7, "add"]))
        before = len(broker.events)
        broker.turn_until(lambda: 7 in received(broker.events))
        assert len(broker.events) - before < 5 * EVENTS_PER_VISIT
        broker.turn_until(lambda: len(broker.events) == 50_001)
        sent.result()
    assert stream.alive


def test_what_comes_at_once_is_given_in_parts_and_in_order(broker: Broker) -> None:
    client, stream = broker.client()
    count = 5 * EVENTS_PER_VISIT + 3
    bundle = encode([43, [[35, number, "add"] for number in range(count)]])
    client.send(bundle, encode([35, count, "add"]))
    broker.turn_until(lambda: broker.events)
    assert len(broker.events) == EVENTS_PER_VISIT
    assert stream.rest
    broker.turn_until(lambda: not stream.rest)
    broker.turn_until(lambda: len(broker.events) == count + 1)
    assert received(broker.events) == list(range(count + 1))


def test_more_is_taken_in_of_a_client_that_is_alone(broker: Broker) -> None:
    (_, one), (_, two) = broker.client(), broker.client()
    visitors = Visitors()
    visitors.heard(one, 1000.0)
    assert visitors.events_max(1000.0) == EVENTS_ALONE  # nobody else was ever heard
    visitors.heard(two, 1001.0)
    assert visitors.events_max(1001.0 + ALONE_S) == EVENTS_PER_VISIT
    assert visitors.events_max(1001.1 + ALONE_S) == EVENTS_ALONE
    visitors.heard(one, 1002.0)
    assert visitors.events_max(1002.0) == EVENTS_PER_VISIT
    visitors.left(two)
    assert visitors.events_max(1002.0) == EVENTS_PER_VISIT
    visitors.left(one)
    visitors.heard(two, 1002.0)
    assert visitors.events_max(1002.0) == EVENTS_ALONE
    visitors.heard_others(1002.0)
    assert visitors.events_max(1002.0) == EVENTS_PER_VISIT


@pytest.mark.parametrize("unread", [False, True])
def test_a_client_that_goes_is_told_after_what_it_sent(broker: Broker, unread: bool) -> None:
    client, stream = broker.client()
    client.send(*[CALL] * 5000)
    if unread:
        assert broker.streams.write(stream, b"never read")
    client.socket.close()
    broker.turn_until(lambda: broker.gone)
    assert len(broker.events) == 5000
    assert broker.gone == [stream]
    assert not stream.alive
    assert broker.streams.by_peer == {}
    assert stream.receive() == ()


@pytest.mark.parametrize("size", [FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_beyond_all_bounds_ends_the_stream(broker: Broker, size: int) -> None:
    client, stream = broker.client()
    client.socket.sendall(frame(CALL) + pack("<I", size))
    broker.turn_until(lambda: broker.gone)
    assert broker.gone == [stream]
    assert client.read_to_end() == []


def test_the_longest_frame_there_may_be_is_refused_and_no_more(broker: Broker) -> None:
    client, stream = broker.client()
    client.send(bytes(FRAME_BYTES_MAX), CALL)
    broker.turn_until(lambda: len(broker.events) == 2)
    assert received(broker.events) == ["PROTOCOL_ERROR", 1]
    assert stream.alive


def test_more_buffers_than_are_passed_over_end_the_stream(broker: Broker) -> None:
    client, stream = broker.client()
    client.send(encode([35, 1, "add", [], {"buffers": LIMITS.frames + 1}]))
    broker.turn_until(lambda: broker.gone)
    assert broker.gone == [stream]
    assert broker.events == []
    assert client.read_to_end() == []


# --- writing ------------------------------------------------------------------------------------


def test_what_a_client_does_not_read_leaves_as_it_reads(broker: Broker) -> None:
    client, stream = broker.client()
    frames = [bytes([index]) * 100_000 for index in range(20)]
    for each in frames[:10]:
        assert broker.streams.write(stream, each)
    stream.put(frames[10:])
    assert broker.streams.flush(stream)
    assert stream.pending_bytes
    broker.turn()
    assert stream.pending_bytes, "the poll waits for room"
    client.send(CALL)
    received_: list[bytes] = []
    while len(received_) < 20:
        received_ += client.read()
        broker.turn()
    assert received_ == frames
    assert received(broker.events) == [1], "it was read all the while"
    assert not stream.waits_to_write
    assert broker.poller.poll(0, 64) == [], "and it is not called for room any more"


@pytest.mark.parametrize("by_flush", [False, True])
def test_who_lets_too_many_replies_pile_up_has_to_go(broker: Broker, by_flush: bool) -> None:
    _, stream = broker.client()

    def give() -> bool:
        if not by_flush:
            return broker.streams.write(stream, b"reply")
        stream.put([b"reply"])
        return broker.streams.flush(stream)

    given = 0
    while give():
        given += 1
    assert given > LIMITS.socket_high_water_mark > 2 * LIMITS.grant_requests
    assert stream.pending_frames == LIMITS.socket_high_water_mark + 1
    broker.streams.drop(stream)
    broker.streams.drop(stream)
    assert broker.streams.by_peer == {}
    broker.turn()


def test_who_lets_too_many_bytes_pile_up_has_to_go(broker: Broker) -> None:
    """Of large results fewer may wait than of others; far more than of one grant's requests."""
    assert 4 * Limits().grant_bytes < DEFAULT_BOUNDS.unread_bytes
    _, stream = broker.client()
    given = 0
    while broker.streams.write(stream, b"x" * 100_000):
        given += 1
    assert given >= 10
    assert stream.pending_bytes > UNREAD_BYTES
    assert broker.streams.slowest() is stream


def test_who_has_little_unread_is_not_the_slowest(broker: Broker) -> None:
    assert broker.streams.slowest() is None
    _, stream = broker.client()
    while not stream.pending_bytes:
        broker.streams.write(stream, b"x" * 10_000)
    assert broker.streams.slowest() is None


@pytest.mark.parametrize("by_flush", [False, True])
def test_who_reads_no_more_has_to_go(broker: Broker, by_flush: bool) -> None:
    client, stream = broker.client()
    client.socket.shutdown(socket.SHUT_RD)
    if by_flush:
        stream.put([b"reply"])
        assert not broker.streams.flush(stream)
    else:
        assert not broker.streams.write(stream, b"reply")


def test_who_reads_no_more_while_something_waits_has_to_go(broker: Broker) -> None:
    client, stream = broker.client()
    assert broker.streams.write(stream, b"x" * MIB)
    assert stream.waits_to_write
    client.socket.shutdown(socket.SHUT_RD)
    broker.turn()  # the system does not tell
    given = 0
    while broker.streams.write(stream, b"reply"):
        given += 1
    assert given < LIMITS.socket_high_water_mark


def test_who_goes_while_something_waits_is_told(broker: Broker) -> None:
    client, stream = broker.client()
    assert broker.streams.write(stream, b"x" * MIB)
    client.send(CALL)
    client.socket.close()
    broker.turn_until(lambda: broker.gone)
    assert broker.gone == [stream]
    assert broker.streams.by_peer == {}


def test_a_stream_dropped_in_the_middle_of_a_turn_is_not_read(broker: Broker) -> None:
    """Its descriptor may be that of somebody else by then."""
    pairs = [broker.client() for _ in range(2)]
    broker.turn()

    def drop_all(stream: Stream) -> None:
        for _, each in pairs:
            broker.streams.drop(each)

    broker.streams._read = drop_all
    for _, stream in pairs:
        broker.poller.watch_reads(stream.fileno(), lambda stream=stream: drop_all(stream))
    for client, _ in pairs:
        client.send(CALL)
    broker.turn()
    assert broker.streams.by_peer == {}
    assert broker.events == []
    assert all(client.read_to_end() == [] for client, _ in pairs)


# --- the end ------------------------------------------------------------------------------------


def test_what_was_not_written_at_the_end_leaves_to_who_reads(broker: Broker) -> None:
    reader, to_reader = broker.client()
    idle, to_idle = broker.client()
    for stream in to_reader, to_idle:
        assert broker.streams.write(stream, b"x" * (8 * MIB))
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit(reader.read_to_end)
        broker.streams.close_all()
        assert [len(one) for one in read.result()] == [8 * MIB]
    assert broker.streams.by_peer == {}
    assert idle.read_to_end() == [], "half a frame is none"


def test_a_closed_broker_hears_of_nobody(broker: Broker) -> None:
    client, _ = broker.client()
    broker.streams.close_all()
    assert client.read_to_end() == []
    assert os.path.exists(broker.path), "until the other socket is gone too"
    broker.streams.close()
    assert not os.path.exists(broker.path)
