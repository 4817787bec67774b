"""The ZeroMQ floors: DEALER to ROUTER directly, and through C ``zmq.proxy`` to an echo worker.

What no broker over ZeroMQ on this machine can beat: the direct one is one hop each way, the
proxied one has the hops that any broker needs, with a broker that decides nothing. The client
sends the same bytes again and again, the worker decodes and encodes them with msgspec. Left out:
correlation, types, errors. It would be wrong if the payload were not of the size that ours
sends.

Mirror: tests/bench/floors/test_zeromq.py.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zmq

from ..children import running
from ..figures import Measurement
from ..timing import Measure, time_each
from .requests import request
from .zeromq_peers import SERVER_PUBLIC, free_tcp_endpoint

_PEERS = "pronghorn.bench.floors.zeromq_peers"


@contextlib.contextmanager
def direct(payload_bytes: int = 0) -> Iterator[Measure]:
    """Round trips from a DEALER to a ROUTER that answers by itself."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        front = f"ipc://{Path(folder) / 'front'}"
        with running(_PEERS, "router", front), _dealer(front) as dealer:
            yield _round_trips(dealer, payload_bytes)


@contextlib.contextmanager
def proxied(payload_bytes: int = 0) -> Iterator[Measure]:
    """Round trips from a DEALER through `zmq.proxy` in C to one blocking worker and back."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        front = f"ipc://{Path(folder) / 'front'}"
        back = f"ipc://{Path(folder) / 'back'}"
        with (
            running(_PEERS, "proxy", front, back),
            running(_PEERS, "worker", back),
            _dealer(front) as dealer,
        ):
            yield _round_trips(dealer, payload_bytes)


@contextlib.contextmanager
def proxied_by_key(payload_bytes: int = 0) -> Iterator[Measure]:
    """The same as `proxied`, clients encrypted and authenticated (CURVE) over tcp loopback."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        front, back = free_tcp_endpoint(), f"ipc://{Path(folder) / 'back'}"
        with (
            running(_PEERS, "secure_proxy", front, back),
            running(_PEERS, "worker", back),
            _dealer(front, by_key=True) as dealer,
        ):
            yield _round_trips(dealer, payload_bytes)


@contextlib.contextmanager
def _dealer(endpoint: str, *, by_key: bool = False) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.LINGER, 0)
        if by_key:
            public, secret = zmq.curve_keypair()
            socket.set(zmq.CURVE_PUBLICKEY, public)
            socket.set(zmq.CURVE_SECRETKEY, secret)
            socket.set(zmq.CURVE_SERVERKEY, SERVER_PUBLIC)
        socket.connect(endpoint)
        yield socket


def _round_trips(dealer: "zmq.Socket[bytes]", payload_bytes: int) -> Measure:
    frame = request(payload_bytes)
    send, receive = dealer.send, dealer.recv

    def once() -> bytes:
        send(frame)
        return receive()

    def measure(calls: int) -> Measurement:
        return time_each(once, frame, calls)

    return measure
