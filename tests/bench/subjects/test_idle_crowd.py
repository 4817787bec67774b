"""Mirror of bench/subjects/idle_crowd.py: clients that are welcome, and one that is not."""

import threading

import pytest
import zmq
from raw_sockets import RawSockets

from pronghorn.bench.children import ChildError
from pronghorn.bench.subjects import idle_crowd
from pronghorn.broker.wire.codec import decode_request
from pronghorn.broker.wire.messages import Hello


def test_all_are_connected_once_all_are_welcome() -> None:
    sockets = RawSockets()
    router = sockets.bind(zmq.ROUTER, "tcp://127.0.0.1:*")
    hellos: list[object] = []

    def welcome() -> None:
        for _ in range(3):
            peer, frame = router.recv_multipart()
            hellos.append(decode_request(frame))
            router.send_multipart([peer, b"welcome"])

    thread = threading.Thread(target=welcome)
    thread.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    idle = idle_crowd.connect(context, endpoint_of(router), 3)
    thread.join()
    assert len(idle) == 3
    assert hellos == [Hello(1, "idle")] * 3
    context.destroy(linger=0)
    sockets.close()


def test_one_that_is_not_welcome_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = RawSockets()
    router = sockets.bind(zmq.ROUTER, "tcp://127.0.0.1:*")
    monkeypatch.setattr(idle_crowd, "_WELCOME_MS", 0)
    with zmq.Context() as context, pytest.raises(ChildError, match="not welcome"):
        idle_crowd.connect(context, endpoint_of(router), 1)
    sockets.close()


def endpoint_of(router: "zmq.Socket[bytes]") -> str:
    last = router.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(last, bytes)
    return last.rstrip(b"\0").decode()
