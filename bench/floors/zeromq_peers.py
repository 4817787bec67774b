"""The other ends of the ZeroMQ floors: ``router FRONT``, ``proxy FRONT BACK``, ``worker BACK``.

``secure_proxy FRONT BACK`` is ``proxy`` for clients that show a key (CURVE), any key.

All block in C until something comes; none polls. Mirror: tests/bench/floors/test_zeromq.py.
"""

import socket as socketlib
import sys
from collections.abc import Callable

import msgspec
import zmq

from ..children import die_with_parent, say_ready

SERVER_PUBLIC = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
_SERVER_SECRET = b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"  # the example of libzmq's manual


def free_tcp_endpoint() -> str:
    """Return a tcp endpoint on loopback that nobody uses at the moment."""
    with socketlib.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def router(front: str) -> None:
    """Answer each request on a ROUTER with itself, decoded and encoded."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(front)
    say_ready()
    _echo(socket)


def proxy(front: str, back: str) -> None:
    """Pass messages between clients and workers, in C."""
    context = zmq.Context()
    _proxy(context.socket(zmq.ROUTER), context.socket(zmq.DEALER), front, back)


def secure_proxy(front: str, back: str) -> None:
    """Pass messages between clients with keys and workers, in C."""
    context = zmq.Context()
    clients = context.socket(zmq.ROUTER)
    clients.set(zmq.CURVE_SERVER, 1)
    clients.set(zmq.CURVE_SECRETKEY, _SERVER_SECRET)
    _proxy(clients, context.socket(zmq.DEALER), front, back)


def worker(back: str) -> None:
    """Answer each request that comes through the proxy with itself, decoded and encoded."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(back)
    say_ready()
    _echo(socket)


def _proxy(
    clients: "zmq.Socket[bytes]", workers: "zmq.Socket[bytes]", front: str, back: str
) -> None:
    clients.bind(front)
    workers.bind(back)
    say_ready()
    zmq.proxy(clients, workers)


def _echo(socket: "zmq.Socket[bytes]") -> None:
    receive, send = socket.recv, socket.send
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    more = zmq.SNDMORE
    while True:
        routing_id = receive()
        reply = encode(decode(receive()))
        send(routing_id, more)
        send(reply)


_ROLES: dict[str, Callable[..., None]] = {
    "router": router,
    "proxy": proxy,
    "secure_proxy": secure_proxy,
    "worker": worker,
}


def main() -> None:
    """Play one role until killed."""
    die_with_parent()
    role, *endpoints = sys.argv[1:]
    _ROLES[role](*endpoints)


if __name__ == "__main__":
    main()
