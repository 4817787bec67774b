"""Mirror of broker/peers.py, on real sockets and processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
import zmq
from raw_sockets import RawSockets
from trees import PATIENCE_S

from pronghorn.broker import peers as module
from pronghorn.broker.frontend import pid_of
from pronghorn.broker.peers import Peers
from pronghorn.broker.poller import Poller

CLIENT = """
import sys, zmq
sockets = [zmq.Context.instance().socket(zmq.DEALER) for _ in range(2)]
for socket in sockets:
    socket.connect(sys.argv[1])
    socket.send(b"here")
print("sent", flush=True)
sys.stdin.read()
"""


class Watching:
    """A ROUTER, and who is seen there."""

    def __init__(self, sockets: RawSockets, endpoint: str) -> None:
        self.router = sockets.bind(zmq.ROUTER, endpoint)
        self.endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.poller = Poller()
        self.gone: list[bytes] = []
        self.peers = Peers(self.poller, self.gone.append)

    def see(self) -> bytes:
        peer = self.router.recv()
        frame = self.router.recv(copy=False)
        if peer not in self.peers.known:
            self.peers.see(peer, pid_of(frame))
        return peer

    def turn(self) -> None:
        ready = self.poller.poll(PATIENCE_S)
        assert ready, "nothing happens"
        for fd, _ in ready:
            self.poller.handlers[fd]()

    def close(self) -> None:
        self.peers.close()
        self.poller.close()


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


@pytest.fixture
def watching(sockets: RawSockets, tmp_path: object) -> Iterator[Watching]:
    with closing(Watching(sockets, f"ipc://{tmp_path}/sock")) as watching:
        yield watching


@pytest.mark.slow
def test_all_connections_of_a_process_are_gone_with_it(watching: Watching) -> None:
    arguments = [sys.executable, "-c", CLIENT, watching.endpoint]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        both = {watching.see(), watching.see()}
        assert watching.poller.poll(0) == []
        client.kill()
        watching.turn()
    assert set(watching.gone) == both
    assert watching.poller.poll(0) == []


def test_a_client_is_watched_once_however_often_it_is_seen(
    watching: Watching, sockets: RawSockets
) -> None:
    dealer = sockets.connect(zmq.DEALER, watching.endpoint)
    dealer.send(b"1")
    peer = watching.see()
    before = len(watching.poller.handlers)
    for _ in range(3):
        dealer.send(b"again")
        assert watching.see() == peer
    assert len(watching.poller.handlers) == before == 1


def test_the_last_connection_that_goes_takes_the_watch_with_it(
    watching: Watching, sockets: RawSockets
) -> None:
    peers = []
    for _ in range(2):
        sockets.connect(zmq.DEALER, watching.endpoint).send(b"1")
        peers.append(watching.see())
    open_files = len(os.listdir("/proc/self/fd"))
    watching.peers.forget(peers[0])
    assert len(os.listdir("/proc/self/fd")) == open_files
    watching.peers.forget(peers[1])
    watching.peers.forget(peers[1])
    assert len(os.listdir("/proc/self/fd")) == open_files - 1


def test_those_that_came_first_are_forgotten_first(
    watching: Watching, sockets: RawSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PEERS_MAX", 2)
    for _ in range(4):
        sockets.connect(zmq.DEALER, watching.endpoint).send(b"1")
        watching.see()
    assert len(watching.peers.known) == 2
    [peers] = watching.peers._of_pid.values()
    assert peers == set(watching.peers.known)


def test_of_a_tcp_client_no_process_is_known(sockets: RawSockets) -> None:
    with closing(Watching(sockets, "tcp://127.0.0.1:*")) as watching:
        sockets.connect(zmq.DEALER, watching.endpoint).send(b"1")
        watching.see()
        assert watching.poller.handlers == {}
