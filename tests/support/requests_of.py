"""Requests, nodes, pages and workers as the broker's own tests need them."""

from typing import Any

from msgspec import Raw

from pronghorn.broker.placement import Placement, Worker
from pronghorn.broker.requests import Node, Request, Session
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage

QUICK = Node(0, "m.quick", concurrent=False, estimate_ns=10_000.0)
SLOW = Node(1, "m.slow", concurrent=False, estimate_ns=5_000_000.0)
UNKNOWN = Node(2, "m.unknown", concurrent=False)
SLEEP = Node(3, "m.sleep", concurrent=True, estimate_ns=5_000_000.0)

_numbers = iter(range(1, 10**9))


def session(peer: bytes = b"peer", grant: int = 100) -> Session:
    return Session(peer, grant)


def request(node: Node = QUICK, of: Session | None = None, **more: Any) -> Request:
    """Make a request; its id is the next one."""
    number = next(_numbers)
    values = {
        "key": number,
        "id": number,
        "session": of or session(),
        "node": node,
        "chunk": False,
        "params": Raw(b"\xc0"),
        "size": 10,
        "buffers": (),
        "origin": None,
        "silent": False,
        "due": None,
    } | more
    inline = values["chunk"] or not node.concurrent
    return Request(**{"inline": inline} | values)


def page() -> SlotsPage:
    return SlotsPage(memoryview(bytearray(PAGE_BYTES)))


def ready_worker(
    placement: Placement, worker_id: int = 1, *, its_page: SlotsPage | None = None
) -> Worker:
    placement.add(worker_id, its_page or page())
    worker = placement.workers[worker_id]
    placement.ready(worker, 1000 + worker_id)
    return worker
