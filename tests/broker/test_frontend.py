"""Mirror of broker/frontend.py, on real sockets."""

import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from raw_sockets import RawSockets

from pronghorn.broker.frontend import BURST_FRAMES, BURST_MESSAGES, Delivery, Frontend
from pronghorn.broker.peers import Peers
from pronghorn.broker.poller import Poller
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import KIB, MIB, Limits

LIMITS = Limits(
    request_bytes=64 * KIB,
    result_bytes=64 * KIB,
    grant_bytes=64 * KIB,
    buffers=2,
    frames=12,
    grant_requests=1,
    stranger_requests=1,
    grant_parts=1,
)


@pytest.fixture(scope="module", autouse=True)
def _zero_copy_has_begun() -> None:
    """Have pyzmq start the thread that it keeps for ever from the first large frame on."""
    sockets = RawSockets()
    there = sockets.bind(zmq.PAIR, "inproc://large")
    sockets.connect(zmq.PAIR, "inproc://large").send(bytes(MIB), copy=False)
    there.recv()
    sockets.close()


@pytest.fixture
def peers() -> Iterator[Peers]:
    poller = Poller()
    peers = Peers(poller, lambda peer: None)
    yield peers
    peers.close()
    poller.close()


@pytest.fixture
def frontend(peers: Peers) -> Iterator[Frontend]:
    frontend = Frontend(LIMITS, peers)
    yield frontend
    frontend.close()


@pytest.fixture
def endpoint(frontend: Frontend, tmp_path: Path) -> str:
    [endpoint] = frontend.bind([f"ipc://{tmp_path}/b"], insecure=False)
    return endpoint


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


def wait_readable(frontend: Frontend) -> None:
    while not frontend.readable():
        ready, _, _ = select.select([frontend.fileno()], [], [], 10)
        assert ready, "nothing came"


def receive(frontend: Frontend, count: int) -> list[list[bytes]]:
    messages: list[list[bytes]] = []
    while len(messages) < count:
        wait_readable(frontend)
        messages += frontend.receive_burst()
    return messages


# --- endpoints -----------------------------------------------------------------------------------


def test_several_endpoints_are_bound_and_told_as_they_are(
    frontend: Frontend, tmp_path: Path, sockets: RawSockets
) -> None:
    bound = frontend.bind(
        ["tcp://127.0.0.1:0", f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b"], insecure=False
    )
    assert bound[:2] == (f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b")
    assert bound[2].startswith("tcp://127.0.0.1:")
    assert not bound[2].endswith(":0")
    for endpoint in bound:
        sockets.dealer(endpoint).send(endpoint.encode())
    assert {message[1] for message in receive(frontend, 3)} == {one.encode() for one in bound}


def test_the_socket_file_is_its_users_alone(endpoint: str) -> None:
    mode = os.stat(endpoint.removeprefix("ipc://")).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert os.umask(0o022) == 0o022  # as it was before


def test_what_can_not_be_bound_says_why(frontend: Frontend, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"can't bind ipc:///no/such/folder/b: No such"):
        frontend.bind(["ipc:///no/such/folder/b"], insecure=False)
    [endpoint] = frontend.bind(["tcp://127.0.0.1:0"], insecure=False)
    with pytest.raises(InvalidArgumentError, match=r"can't bind tcp://.*Address already in use"):
        frontend.bind([endpoint], insecure=False)
    with pytest.raises(InvalidArgumentError, match=r"reached from the network"):
        frontend.bind(["tcp://0.0.0.0:0"], insecure=False)


def test_closing_removes_the_socket_files(peers: Peers, tmp_path: Path) -> None:
    frontend = Frontend(LIMITS, peers)
    frontend.bind([f"ipc://{tmp_path}/a", f"ipc://{tmp_path}/b"], insecure=False)
    frontend.close()
    assert list(tmp_path.iterdir()) == []


# --- what comes in -------------------------------------------------------------------------------


def test_messages_come_with_their_routing_ids(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    first, second = sockets.dealer(endpoint), sockets.dealer(endpoint)
    first.send_multipart([b"a", b"", b"c"])
    second.send(b"")
    messages = sorted(receive(frontend, 2), key=len)
    assert [message[1:] for message in messages] == [[b""], [b"a", b"", b"c"]]
    assert messages[0][0] != messages[1][0]
    assert not frontend.readable()
    assert frontend.receive_burst() == []


def test_a_burst_is_bounded(frontend: Frontend, endpoint: str, sockets: RawSockets) -> None:
    client = sockets.dealer(endpoint, SNDHWM=0)
    for index in range(BURST_MESSAGES + 10):
        client.send(b"%d" % index)
    seen = 0
    while seen < BURST_MESSAGES + 10:
        wait_readable(frontend)
        burst = frontend.receive_burst()
        assert [message[1] for message in burst] == [
            b"%d" % index for index in range(seen, seen + len(burst))
        ]
        assert len(burst) <= BURST_MESSAGES
        seen += len(burst)


def test_a_burst_of_messages_of_many_frames_is_shorter(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    client = sockets.dealer(endpoint, SNDHWM=0)
    for _ in range(40):
        client.send_multipart([b"x"] * 10)
    seen = longest = 0
    while seen < 40:
        wait_readable(frontend)
        burst = frontend.receive_burst()
        assert all(len(message) == 11 for message in burst)
        longest = max(longest, len(burst))
        seen += len(burst)
    assert longest <= BURST_FRAMES // 9 + 2


def test_a_burst_of_large_messages_is_shorter(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    client = sockets.dealer(endpoint, SNDHWM=0)
    for _ in range(20):
        client.send(bytes(10 * KIB))
    bursts: list[int] = []
    while sum(bursts) < 20:
        wait_readable(frontend)
        bursts.append(len(frontend.receive_burst()))
    assert max(bursts) <= 3


def test_of_too_many_frames_one_too_many_is_kept(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    client = sockets.dealer(endpoint)
    client.send_multipart([b"x"] * 1000)
    client.send(b"next")
    first, following = receive(frontend, 2)
    assert len(first) == 1 + LIMITS.frames + 1
    assert following[1] == b"next"


def test_a_frame_beyond_all_bounds_ends_its_connection_alone(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    good, bad = sockets.dealer(endpoint), sockets.dealer(endpoint)
    monitor = bad.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    bad.send(bytes(LIMITS.socket_message_bytes + 1))
    assert monitor.poll(10_000)
    bad.disable_monitor()
    monitor.close(linger=0)
    good.send(b"still here")
    assert [message[1] for message in receive(frontend, 1)] == [b"still here"]


def test_routing_ids_can_not_be_foretold(peers: Peers, tmp_path: Path, sockets: RawSockets) -> None:
    ids = []
    for name in ("a", "b"):
        frontend = Frontend(LIMITS, peers)
        sockets.dealer(*frontend.bind([f"ipc://{tmp_path}/{name}"], insecure=False)).send(b"x")
        ids.append(int.from_bytes(receive(frontend, 1)[0][0][1:], "big"))
        frontend.close()
    assert abs(ids[0] - ids[1]) > 1  # they count up from a seed of time and process id otherwise


# --- what goes out -------------------------------------------------------------------------------


def test_a_message_is_sent_to_its_peer(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    client = sockets.dealer(endpoint)
    client.send(b"")
    peer = receive(frontend, 1)[0][0]
    assert not frontend.touched
    assert frontend.send_one(peer, b"one") is Delivery.SENT
    assert frontend.touched
    large = bytes(range(256)) * 4 * KIB
    assert frontend.send(peer, [b"", b"two", memoryview(large)]) is Delivery.SENT
    assert client.recv_multipart() == [b"one"]
    assert client.recv_multipart() == [b"", b"two", large]


def test_an_unknown_peer_is_gone(frontend: Frontend, endpoint: str) -> None:
    assert frontend.send_one(b"nobody", b"x") is Delivery.GONE
    assert frontend.send(b"nobody", [b"x", b"y"]) is Delivery.GONE


def test_an_error_that_is_not_the_peers_is_raised(peers: Peers) -> None:
    frontend = Frontend(LIMITS, peers)
    frontend.close()
    with pytest.raises(zmq.ZMQError):
        frontend.send_one(b"peer", b"x")


def test_a_peer_that_does_not_read_gets_full_and_the_others_do_not_wait(
    frontend: Frontend, endpoint: str, sockets: RawSockets
) -> None:
    idle, busy = sockets.dealer(endpoint, RCVHWM=1), sockets.dealer(endpoint)
    for client, name in ((idle, b"idle"), (busy, b"busy")):
        client.send(name)
    peers = {message[1]: message[0] for message in receive(frontend, 2)}
    frame = bytes(60 * KIB)
    sent = 0
    while frontend.send(peers[b"idle"], [frame]) is Delivery.SENT:
        sent += 1
        assert sent * len(frame) < 64 * MIB
    assert sent >= LIMITS.socket_high_water_mark
    assert frontend.send_one(peers[b"idle"], b"x") is Delivery.FULL
    assert frontend.send_one(peers[b"busy"], b"x") is Delivery.SENT
    assert busy.recv() == b"x"
