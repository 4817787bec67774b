"""Requests, nodes, pages and workers as the broker's own tests need them."""

from typing import Any

import msgspec
from msgspec import Raw

from pronghorn.broker.placement import Placement, Worker
from pronghorn.broker.requests import Node, Request, Session
from pronghorn.broker.wire.errors import NodeError
from pronghorn.broker.wire.items import ItemResults
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage

AREA_BYTES = 4096

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


class Page(SlotsPage):
    """A page with the area behind it, for both sides."""

    __slots__ = ("area",)

    def __init__(self) -> None:
        self.area = bytearray(AREA_BYTES)
        super().__init__(memoryview(bytearray(PAGE_BYTES)), lambda size: bytes(self.area[:size]))

    def results(self, slot: int) -> ItemResults:
        """Give what the worker puts the results of a chunk's items into."""
        words, word = self.mark_word(slot)
        return ItemResults(
            self.area,
            words,
            word,
            limit=AREA_BYTES // 2,
            encode=msgspec.msgpack.encode,
            unencodable=lambda error, value: NodeError(f"{error}: {value!r}"),
            too_large=lambda size: NodeError(f"{size} bytes"),
        )

    def put(self, slot: int, *values: object) -> None:
        """Be the worker and put results of items."""
        results = self.results(slot)
        for value in values:
            results.put(results.encode(value))


def ready_worker(
    placement: Placement, worker_id: int = 1, *, its_page: Page | None = None
) -> Worker:
    placement.add(worker_id, its_page or Page(), 0.0)
    worker = placement.workers[worker_id]
    placement.ready(worker, 1000 + worker_id)
    return worker
