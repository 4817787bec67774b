"""The worker of the links benchmark: the same loop and node over either link, on uvloop.

``link_worker zeromq ENDPOINT`` or ``link_worker socketpair FD``. A reader callback takes a
bounded burst, runs it, and answers with one message or write; no zmq.asyncio, no task per
request.

Mirror: tests/bench/micro/test_links.py.
"""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable
from time import perf_counter_ns

import msgspec
import uvloop
import zmq
from zmq import backend

from pronghorn.broker.wire.link import Done, FrameReader, RunCall

from ..children import die_with_parent, say_ready
from ..floors.functions import add
from .link_brokers import BURST_BYTES, drain, has_input, send_message, write_frames


class _Parameters(msgspec.Struct):
    a: int
    b: int


_encode = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(RunCall).decode
_decode_parameters = msgspec.msgpack.Decoder(_Parameters).decode


def run_all(frames: Iterable[bytes]) -> list[bytes]:
    """Run each request and encode its result."""
    results = []
    for frame in frames:
        run = _decode_run(frame)
        begin = perf_counter_ns()
        parameters = _decode_parameters(run.params)
        value = add(parameters.a, parameters.b)
        done = Done(run.token, msgspec.Raw(_encode(value)), perf_counter_ns() - begin)
        results.append(_encode(done))
    return results


def zeromq_reader(loop: asyncio.AbstractEventLoop, endpoint: str) -> tuple[int, Callable[[], None]]:
    """Connect and return the descriptor to watch and what to do when it wakes us."""
    link = backend.Socket(backend.Context(), zmq.DEALER)
    link.connect(endpoint)
    link.send(b"here")

    def on_readable() -> None:
        # The descriptor is edge-triggered: look at EVENTS again after every send and receive.
        if not has_input(link):
            return
        results = run_all([frame for message in drain(link) for frame in message])
        send_message(link, results)
        if has_input(link):
            loop.call_soon(on_readable)

    loop.call_soon(on_readable)  # for what came before the descriptor was watched
    return link.get(zmq.FD), on_readable  # type: ignore[return-value]


def socketpair_reader(loop: asyncio.AbstractEventLoop, fd: str) -> tuple[int, Callable[[], None]]:
    """Take over the stream and return the descriptor to watch and what to do when it wakes us."""
    stream = socket.socket(fileno=int(fd))
    reader = FrameReader()

    def on_readable() -> None:
        arrived = stream.recv(BURST_BYTES)
        if not arrived:
            loop.stop()
            return
        write_frames(stream, run_all(reader.feed(arrived)))

    return stream.fileno(), on_readable


_READERS = {"zeromq": zeromq_reader, "socketpair": socketpair_reader}


def main() -> None:
    """Work over one kind of link: KIND ADDRESS."""
    die_with_parent()
    kind, address = sys.argv[1:]
    loop = uvloop.new_event_loop()
    fd, on_readable = _READERS[kind](loop, address)
    loop.add_reader(fd, on_readable)
    say_ready()
    loop.run_forever()


if __name__ == "__main__":
    main()
