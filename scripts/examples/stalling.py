"""A plain ZeroMQ service that stands still for 200 ms in each 2 s: to try a load generator on.

    python scripts/examples/stalling.py tcp://127.0.0.1:5600
    pronghorn load --endpoint tcp://127.0.0.1:5600 --frame hello --rate 1000 --duration 10

A tenth of the calls come while it stands still, and wait from 0 to 200 ms. So p95, p97.5 and p99
are 100, 150 and 180 ms; a generator that waits for each answer before it sends the next call sees
five slow calls, and a p99 of some hundred microseconds.
"""

import sys
import time

import zmq

PERIOD_S, STALL_S = 2.0, 0.2


def main(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.sndhwm = socket.rcvhwm = 0
        socket.bind(endpoint)
        begin = time.monotonic()
        while True:
            within = (time.monotonic() - begin) % PERIOD_S
            if within >= PERIOD_S - STALL_S:
                time.sleep(PERIOD_S - within)
            if socket.poll(20):
                socket.send_multipart(socket.recv_multipart())


if __name__ == "__main__":
    main(sys.argv[1])
