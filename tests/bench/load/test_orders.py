"""What session and generators tell each other."""

import os

from load_records import tally_of

from pronghorn.bench.load.mix import make_kind
from pronghorn.bench.load.orders import Begin, Done, Inlet, Order, Ready, receive, send
from pronghorn.bench.load.plan import Plan

PLAN = Plan(rate=10, duration_s=1)
DONE = Done(1, 0.5, 100, False, 1.0, tally_of(PLAN).values())


def test_orders_arrive_whole_and_the_end_of_the_pipe_is_told() -> None:
    order = Order(PLAN, (make_kind("a", 1, [[1]], 1),), "pronghorn", "ipc://x", 0)
    read, write = os.pipe()
    send(write, order)
    send(write, Begin(5))
    os.close(write)
    assert [receive(read) for _ in range(3)] == [order, Begin(5), None]
    os.close(read)


def test_reports_are_put_together_from_any_pieces() -> None:
    read, write = os.pipe()
    send(write, Ready())
    send(write, DONE)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    for size in (1, 3, 1000):
        inlet = Inlet()
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        assert [each for piece in pieces for each in inlet.feed(piece)] == [Ready(), DONE]
