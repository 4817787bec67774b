"""The other ends of the ZeroMQ floors: ``router FRONT``, ``proxy FRONT BACK``, ``worker BACK``.

All block in C until something comes; none polls. Mirror: tests/bench/floors/test_zeromq.py.
"""

import sys
from collections.abc import Callable

import msgspec
import zmq

from ..children import die_with_parent, say_ready


def router(front: str) -> None:
    """Answer each request on a ROUTER with itself, decoded and encoded."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(front)
    say_ready()
    _echo(socket)


def proxy(front: str, back: str) -> None:
    """Pass messages between clients and workers, in C."""
    context = zmq.Context()
    clients, workers = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    clients.bind(front)
    workers.bind(back)
    say_ready()
    zmq.proxy(clients, workers)


def worker(back: str) -> None:
    """Answer each request that comes through the proxy with itself, decoded and encoded."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(back)
    say_ready()
    _echo(socket)


def _echo(socket: "zmq.Socket[bytes]") -> None:
    receive, send = socket.recv, socket.send
    decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
    more = zmq.SNDMORE
    while True:
        routing_id = receive()
        reply = encode(decode(receive()))
        send(routing_id, more)
        send(reply)


_ROLES: dict[str, Callable[..., None]] = {"router": router, "proxy": proxy, "worker": worker}


def main() -> None:
    """Play one role until killed."""
    die_with_parent()
    role, *endpoints = sys.argv[1:]
    _ROLES[role](*endpoints)


if __name__ == "__main__":
    main()
