"""Requests that can't be sent yet, in order, and when the time of each is over. Pure.

Mirror: tests/client/test_waiting.py.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

import msgspec

from pronghorn.broker.wire.codec import encode_message
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import Call, MapChunk, Run

Handle = TypeVar("Handle")

DUES_ROOM = 64
"""Deadlines below which it is not worth while to look for those of requests that wait no more."""

GAPS_MAX = 1024
"""Entries of a dict that is worn out at the front which may be passed over to get to the first."""

LEFT_MS_MIN = 0.001
"""Told to the broker where less is left: it takes no request with none."""


class WaitingRequest(msgspec.Struct, Generic[Handle], frozen=True, gc=False):
    """A request that can't be sent yet."""

    handle: Handle
    node: str
    frame: bytes  # as it would be sent at once; empty if it has a deadline
    buffers: Sequence[Buffer]
    size: int  # bytes of frame and buffers
    # iff it has a deadline: its frame tells what is left
    message: Call | MapChunk | Run | None = None
    due: float = inf  # the deadline, monotonic seconds


def hurried(message: Call | MapChunk | Run, left_ms: float) -> bytes:
    """Encode a request of whose time only so much is left."""
    options = message.options
    assert options is not None
    assert options.timeout_ms is not None
    timeout_ms = max(LEFT_MS_MIN, min(options.timeout_ms, left_ms))
    options = msgspec.structs.replace(options, timeout_ms=timeout_ms)
    return encode_message(msgspec.structs.replace(message, options=options))


class Waiting(Generic[Handle]):
    """All requests of one connection that wait."""

    def __init__(self) -> None:
        # request id -> request, oldest first; one without a deadline may be added here
        self.requests: dict[int, WaitingRequest[Handle]] = {}
        self._gaps = 0  # requests that were taken out of `requests` since it was made
        # (due, request id) of those that have a deadline, and of some that wait no more: a heap
        self._dues: list[tuple[float, int]] = []

    def add(self, request_id: int, request: WaitingRequest[Handle]) -> None:
        """Let a request with a deadline wait behind all others."""
        self.requests[request_id] = request
        if len(self._dues) >= max(DUES_ROOM, 2 * len(self.requests)):
            self._dues = [entry for entry in self._dues if entry[1] in self.requests]
            heapify(self._dues)
        heappush(self._dues, (request.due, request_id))

    def pop(self, request_id: int) -> WaitingRequest[Handle] | None:
        """Take out a request, `None` if it does not wait."""
        request = self.requests.pop(request_id, None)
        self._tidy(1)
        return request

    def drop(self, request_ids: Sequence[int]) -> None:
        """Take out requests that wait."""
        for request_id in request_ids:
            del self.requests[request_id]
        self._tidy(len(request_ids))

    def pop_overdue(self, now: float) -> list[tuple[int, WaitingRequest[Handle]]]:
        """Take out the requests whose time is over, earliest first."""
        overdue: list[tuple[int, WaitingRequest[Handle]]] = []
        while self.next_due() <= now:
            _, request_id = heappop(self._dues)
            overdue.append((request_id, self.requests[request_id]))
            self.drop([request_id])
        return overdue

    def next_due(self) -> float:
        """Tell when the next request's time is over, `inf` when there is none."""
        dues, requests = self._dues, self.requests
        while dues and dues[0][1] not in requests:
            heappop(dues)
        return dues[0][0] if dues else inf

    def clear(self) -> None:
        """Take out all."""
        self.requests, self._gaps = {}, 0
        self._dues.clear()

    def check_invariants(self) -> None:
        """Check that the parts of the state agree; for tests."""
        dues = {(one.due, id_) for id_, one in self.requests.items() if one.due < inf}
        assert dues <= set(self._dues)
        assert list(self.requests) == sorted(self.requests), "in the order they were opened"
        assert self._gaps <= max(GAPS_MAX, len(self.requests))

    def _tidy(self, gaps: int) -> None:
        # To get to its first entry a dict passes over all that were before it.
        self._gaps += gaps
        if not self.requests:
            self.clear()
        elif self._gaps > max(GAPS_MAX, len(self.requests)):
            self.requests, self._gaps = dict(self.requests), 0
