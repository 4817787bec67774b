"""Two minimal brokers that differ in the link to their workers alone: ZeroMQ or socket pairs.

``python -m pronghorn.bench.micro.link_brokers zeromq|socketpair FOLDER WORKERS WINDOW`` serves
until killed. Both: one thread, one blocking `zmq_poll`, the C backend's sockets without the
Python layer, results before requests, bounded bursts, and all that a burst produced for one peer
in one message or write.

Mirror: tests/bench/micro/test_links.py.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from zmq import backend

from pronghorn.broker.wire.link import LENGTH, FrameReader

from ..children import die_with_parent, running, say_ready
from .link_router import Router

BURST_MESSAGES = 64  # most messages taken from one socket before what they caused is sent
BURST_BYTES = 64 * 1024  # most bytes taken from one worker's stream before that
_WORKER = "pronghorn.bench.micro.link_worker"


def front_endpoint(folder: str) -> str:
    """Return where clients connect."""
    return f"ipc://{Path(folder) / 'front'}"


def serve_over_zeromq(folder: str, worker_count: int, window: int) -> None:
    """Clients on one ROUTER, workers on another."""
    context = backend.Context()
    clients, workers = backend.Socket(context, zmq.ROUTER), backend.Socket(context, zmq.ROUTER)
    clients.bind(front_endpoint(folder))
    back = f"ipc://{Path(folder) / 'back'}"
    workers.bind(back)
    with contextlib.ExitStack() as stack:
        for _ in range(worker_count):
            stack.enter_context(running(_WORKER, "zeromq", back))
        ids = [receive_message(workers)[0] for _ in range(worker_count)]  # each says who it is
        router = Router(worker_count, window)
        polled = [(clients, zmq.POLLIN), (workers, zmq.POLLIN)]
        say_ready()
        while True:
            ready = [entry[0] for entry in backend.zmq_poll(polled, -1)]
            if workers in ready:
                for _, *frames in drain(workers):
                    send_replies(clients, router.complete(frames))
            if clients in ready:
                admit_requests(clients, router)
            for worker, frames in router.assign().items():
                send_message(workers, [ids[worker], *frames])


def serve_over_socketpairs(folder: str, worker_count: int, window: int) -> None:
    """Clients on a ROUTER, each worker on a stream socket of its own."""
    context = backend.Context()
    clients = backend.Socket(context, zmq.ROUTER)
    clients.bind(front_endpoint(folder))
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(_streaming_worker()) for _ in range(worker_count)]
        by_fd = {stream.fileno(): (stream, FrameReader()) for stream in streams}
        router = Router(worker_count, window)
        polled: list[tuple[Any, int]] = [(clients, zmq.POLLIN)]
        polled += [(fd, zmq.POLLIN) for fd in by_fd]
        say_ready()
        while True:
            ready = [entry[0] for entry in backend.zmq_poll(polled, -1)]
            for fd in ready:
                if isinstance(fd, int):
                    stream, reader = by_fd[fd]
                    frames = reader.feed(stream.recv(BURST_BYTES))
                    send_replies(clients, router.complete(frames))
            if clients in ready:
                admit_requests(clients, router)
            for worker, frames in router.assign().items():
                write_frames(streams[worker], frames)


def admit_requests(clients: backend.Socket, router: Router) -> None:
    """Take in a burst of requests."""
    for client, *frames in drain(clients):
        for frame in frames:
            router.admit(client, frame)


def drain(source: backend.Socket) -> Iterator[list[bytes]]:
    """Receive what is there, up to a burst; to be called when the poll said there is something."""
    for _ in range(BURST_MESSAGES):
        yield receive_message(source)
        if not has_input(source):
            return


def has_input(source: backend.Socket) -> bool:
    """Say whether a receive would find something; also re-arms the socket's descriptor."""
    return bool(source.get(zmq.EVENTS) & zmq.POLLIN)  # type: ignore[arg-type, operator]  # an int


def receive_message(source: backend.Socket) -> list[bytes]:
    """Receive all frames of one message."""
    frames = [source.recv()]
    while source.get(zmq.RCVMORE):
        frames.append(source.recv())
    return frames


def send_message(sink: backend.Socket, frames: list[bytes]) -> None:
    """Send frames as one message."""
    for frame in frames[:-1]:
        sink.send(frame, zmq.SNDMORE)
    sink.send(frames[-1])


def send_replies(clients: backend.Socket, replies: dict[bytes, list[bytes]]) -> None:
    """Send each client its replies, one message a client."""
    for client, frames in replies.items():
        send_message(clients, [client, *frames])


def write_frames(stream: socket.socket, frames: list[bytes]) -> None:
    """Write frames with their lengths, in one go; windows keep it below the socket's buffer."""
    parts = []
    for frame in frames:
        parts.append(LENGTH.pack(len(frame)))
        parts.append(frame)
    stream.sendall(b"".join(parts))


@contextlib.contextmanager
def _streaming_worker() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        running(_WORKER, "socketpair", str(theirs.fileno()), pass_fds=[theirs.fileno()]),
    ):
        theirs.close()
        yield ours


_LINKS = {"zeromq": serve_over_zeromq, "socketpair": serve_over_socketpairs}


def main() -> None:
    """Serve over one kind of link: KIND FOLDER WORKERS WINDOW."""
    die_with_parent()
    kind, folder, worker_count, window = sys.argv[1:]
    _LINKS[kind](folder, int(worker_count), int(window))


if __name__ == "__main__":
    main()
