"""A plain ZeroMQ service that stands still in each period: what is to be seen of it is arithmetic.

``python -m pronghorn.bench.floors.stalling ENDPOINT PERIOD_S STALL_S`` says ``ready`` and echoes
until it is ended. Mirror: tests/bench/floors/test_stalling.py.
"""

import sys
import time

import zmq

from ..children import die_with_parent, say_ready

_WAIT_MS = 5  # at most until it sees that it is time to stand still


def serve(endpoint: str, period_s: float, stall_s: float) -> None:
    """Echo for ever, but for the end of each period."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.sndhwm = socket.rcvhwm = 0
        socket.bind(endpoint)
        say_ready()
        begin = time.monotonic()
        while True:
            within = (time.monotonic() - begin) % period_s
            left_s = period_s - stall_s - within
            if left_s <= 0:
                time.sleep(period_s - within)
                left_s = period_s - stall_s
            if socket.poll(max(1, min(_WAIT_MS, int(left_s * 1000)))):
                socket.send_multipart(socket.recv_multipart())


def main() -> None:
    """Serve until killed."""
    die_with_parent()
    endpoint, period_s, stall_s = sys.argv[1:]
    serve(endpoint, float(period_s), float(stall_s))


if __name__ == "__main__":
    main()
