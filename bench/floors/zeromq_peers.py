"""The other ends of the ZeroMQ floors: ``router FRONT``, ``proxy FRONT BACK``, ``worker BACK``,
``answerer BACK``.

``secure_proxy FRONT BACK`` is ``proxy`` for clients that show a key (CURVE), any key.

All block in C until something comes; none polls. Mirror: tests/bench/floors/test_zeromq.py.
"""

import socket as socketlib
import sys
from collections.abc import Callable

import msgspec
import zmq

from ..children import die_with_parent, say_ready

_CALL, _RESULT = 35, 49  # kinds of the protocol

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


def answerer(back: str) -> None:
    """Answer each call that comes through the proxy with the result 3, as a protocol client wants.

    All else that such a client says, its probe, hello and goodbye, is passed over.
    """
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(back)
    say_ready()
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    while True:
        routing_id, *frames = socket.recv_multipart()
        for frame in filter(None, frames):
            kind, *rest = decode(frame)
            if kind == _CALL:
                socket.send_multipart([routing_id, encode([_RESULT, rest[0], 3, 0])])


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
    "answerer": answerer,
}


def main() -> None:
    """Play one role until killed."""
    die_with_parent()
    role, *endpoints = sys.argv[1:]
    _ROLES[role](*endpoints)


if __name__ == "__main__":
    main()
