"""What a connection stands on, by its endpoint and what is there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import zmq
from raw_sockets import RawSockets
from trees import PATIENCE_S

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.sockets import BrokerSocket, Sockets, not_connected
from pronghorn.client.streamsocket import StreamSocket
from pronghorn.client.zmqsocket import ZmqSocket


class Opener:
    """Opens sockets and closes them, and what they share, at the end."""

    def __init__(self, endpoint: str) -> None:
        self.sockets = Sockets(endpoint)
        self.opened: list[BrokerSocket] = []

    def open(self) -> BrokerSocket:
        self.opened.append(self.sockets.open())
        return self.opened[-1]

    def close(self) -> None:
        for each in self.opened:
            each.close()
        self.sockets.close()  # which hangs if one of them is open


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "broker.sock")


@pytest.fixture
def opener(path: str) -> Iterator[Opener]:
    opener = Opener(f"ipc://{path}")
    yield opener
    opener.close()


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "nonsense",
        "http://localhost:80",
        "inproc://here",
        "local:",
        "ipc://relative.sock",
        "ipc:///tmp/broker.sock.stream",
        "ipc:///tmp/\0.sock",
        "ipc:///tmp/\udcff.sock",
        "tcp://\udcff:80",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:123456",
        "tcp://[::1",
        f"ipc:///{'long' * 30}.sock",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Sockets(endpoint)
    assert str(caught.value).encode(), "it can be printed"


def test_over_tcp_it_is_zeromq() -> None:
    opener = Opener("tcp://127.0.0.1:9")
    assert isinstance(opener.open(), ZmqSocket)
    opener.close()


def test_where_a_stream_would_have_too_long_a_path_it_is_zeromq(tmp_path: Path) -> None:
    room = 107 - len(str(tmp_path)) - 1
    opener = Opener(f"ipc://{tmp_path}/{'x' * room}")
    assert isinstance(opener.open(), ZmqSocket)
    opener.close()


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ([], StreamSocket),  # a broker may be about to start
        ([".stream"], StreamSocket),  # it does
        ([".stream", ""], StreamSocket),
        ([""], ZmqSocket),  # no broker's: a proxy's, say
    ],
)
def test_a_stream_is_used_unless_only_the_other_socket_is_there(
    opener: Opener, path: str, files: list[str], kind: type[Any]
) -> None:
    for suffix in files:
        Path(path + suffix).touch()
    assert isinstance(opener.open(), kind)
    assert opener.sockets.is_outdated() is (kind is ZmqSocket)


def test_a_proxy_that_comes_later_is_found(opener: Opener, path: str) -> None:
    ours = opener.open()
    assert not ours.connect()
    assert not opener.sockets.is_outdated()
    sockets = RawSockets()
    sockets.bind(zmq.ROUTER, f"ipc://{path}")
    assert opener.sockets.is_outdated()
    assert isinstance(opener.open(), ZmqSocket)
    sockets.close()


def test_sockets_opened_at_once_share_a_context() -> None:
    for _ in range(20):
        opener = Opener("tcp://127.0.0.1:9")
        begin = Barrier(4)

        def work(opener: Opener = opener, begin: Barrier = begin) -> Any:
            begin.wait(PATIENCE_S)
            ours = opener.open()
            assert isinstance(ours, ZmqSocket)
            return ours._socket.context

        with ThreadPoolExecutor(4) as threads:
            contexts = [one.result() for one in [threads.submit(work) for _ in range(4)]]
        assert len(set(map(id, contexts))) == 1
        opener.close()


def test_what_could_not_be_sent_was_not_started() -> None:
    assert not_connected().outcome == "not_started"
