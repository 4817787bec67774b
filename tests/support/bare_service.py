"""A plain ZeroMQ service whose delays are known: for what measures it."""

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import zmq

PERIOD_S, STALL_S = 5.0, 1.0


@contextmanager
def bare_service(
    delay_s: Callable[[int], float] = lambda number: 0.0,
    *,
    stalls: bool = False,
    answers: bool = True,
) -> Iterator[str]:
    """Echo each request after a delay that its number says; gives the endpoint.

    Args:
        delay_s: Seconds until the answer to the request of that number.
        stalls: Stand still for `STALL_S` in each `PERIOD_S`.
        answers: Whether it answers any but the first request.
    """
    ending = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        thread = threading.Thread(
            target=_serve, args=(socket, delay_s, stalls, answers, ending), daemon=True
        )
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            ending.set()
            thread.join()


def _serve(
    socket: "zmq.Socket[bytes]",
    delay_s: Callable[[int], float],
    stalls: bool,
    answers: bool,
    ending: threading.Event,
) -> None:
    begin = monotonic()
    waiting: list[tuple[float, int, list[bytes]]] = []  # when to answer, number, frames
    number = 0
    while not ending.is_set():
        within = (monotonic() - begin) % PERIOD_S
        if stalls and within >= PERIOD_S - STALL_S:
            sleep(PERIOD_S - within)
        until_ms = 20.0 if not waiting else max(0.0, (waiting[0][0] - monotonic()) * 1000)
        if socket.poll(min(20, int(until_ms))):
            frames = socket.recv_multipart()
            heapq.heappush(waiting, (monotonic() + delay_s(number), number, frames))
            number += 1
        while waiting and waiting[0][0] <= monotonic():
            _, which, frames = heapq.heappop(waiting)
            if answers or not which:
                socket.send_multipart(frames)
