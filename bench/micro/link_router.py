"""The minimal router that both brokers of the links benchmark share, so that only the link differs.

Keeps a queue and a window per worker, and sees to nothing else: no deadlines, limits, claims or
errors. Frames are encoded with the real messages of the wire. Mirror:
tests/bench/micro/test_link_router.py.
"""

from collections import deque

import msgspec

from pronghorn.broker.wire.link import Done, RunCall
from pronghorn.broker.wire.messages import Call, Result
from pronghorn.broker.wire.slots import SLOTS_PER_WORKER

WINDOW = SLOTS_PER_WORKER
"""Requests that a worker may hold, as many as it has slots."""

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_done = msgspec.msgpack.Decoder(Done).decode


class Router:
    """Deals requests out to workers and results to clients; frames in, frames out, per peer."""

    def __init__(self, worker_count: int, window: int = WINDOW) -> None:
        self._window = window
        # (client's routing id, frame) in order of arrival; not yet given to a worker
        self._queue: deque[tuple[bytes, bytes]] = deque()
        # token -> (client's routing id, request id, worker); a key is here iff a worker holds it
        self._in_flight: dict[int, tuple[bytes, int | str | None, int]] = {}
        self._held = [0] * worker_count  # worker -> number of its requests in `_in_flight`
        self._token = 0

    def admit(self, client: bytes, frame: bytes) -> None:
        """Take in one request of a client."""
        self._queue.append((client, frame))

    def assign(self) -> dict[int, list[bytes]]:
        """Deal out what the windows allow, to whoever holds least: worker -> frames."""
        out: dict[int, list[bytes]] = {}
        held, window = self._held, self._window
        while self._queue:
            least = min(held)
            if least >= window:
                break
            worker = held.index(least)
            client, frame = self._queue.popleft()
            call = _decode_call(frame)
            self._token = token = self._token + 1
            self._in_flight[token] = (client, call.id, worker)
            held[worker] = least + 1
            run = RunCall(token=token, slot=0, node=0, codec=0, params=call.params)
            out.setdefault(worker, []).append(_encode(run))
        return out

    def complete(self, frames: list[bytes]) -> dict[bytes, list[bytes]]:
        """Take in results of workers: client's routing id -> reply frames."""
        out: dict[bytes, list[bytes]] = {}
        for frame in frames:
            done = _decode_done(frame)
            client, request_id, worker = self._in_flight.pop(done.token)
            self._held[worker] -= 1
            out.setdefault(client, []).append(_encode(Result(id=request_id, value=done.value)))
        return out
