"""Clients with a key, many of them in one process, that connect and then say nothing.

``python -m pronghorn.bench.subjects.idle_crowd ENDPOINT COUNT`` says ``ready`` once the broker has
welcomed each, and stays until it is ended. The key is the environment's.

Mirror: tests/bench/subjects/test_idle_crowd.py.
"""

import signal
import sys

import zmq

from pronghorn.broker.wire.codec import encode_message
from pronghorn.broker.wire.messages import Hello
from pronghorn.client.keys import key_for

from ..children import ChildError, die_with_parent, say_ready

_WELCOME_MS = 30_000
_AT_ONCE = 50  # handshakes, so that none waits so long that it is given up
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 5000, 15000  # as our clients have it


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, count: int
) -> "list[zmq.Socket[bytes]]":
    """Connect so many clients and wait until all are welcome; destroying the context ends them.

    Raises:
        ChildError: One is not.
    """
    context.set(zmq.MAX_SOCKETS, count + 16)
    sockets: list[zmq.Socket[bytes]] = []
    while len(sockets) < count:
        welcome = len(sockets)
        for _ in range(min(_AT_ONCE, count - welcome)):
            sockets.append(_client(context, endpoint))
            sockets[-1].send(encode_message(Hello(1, "idle")))
        for socket in sockets[welcome:]:
            if not socket.poll(_WELCOME_MS):
                for each in sockets:
                    each.close()
                raise ChildError("an idle client is not welcome")
            socket.recv()
    return sockets


def _client(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    key = key_for(endpoint)
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
    if key is not None:
        socket.set(zmq.CURVE_PUBLICKEY, key.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, key.secret.encode())
        socket.set(zmq.CURVE_SERVERKEY, key.server.encode())
    socket.connect(endpoint)
    return socket


def main() -> None:
    """Be idle until somebody ends this process."""
    die_with_parent()
    endpoint, count = sys.argv[1:]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    idle = connect(context, endpoint, int(count))
    say_ready()
    signal.pause()
    assert idle


if __name__ == "__main__":
    main()
