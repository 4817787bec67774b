"""How `map` cuts items into chunks, keeps them in flight and puts results in order. Pure.

A chunk should run for `TARGET_MS`: short enough that the workers end together and a slow item holds
up few others, long enough that a message's cost vanishes. The size follows the run time that the
worker measured; it starts at one item, for nothing is known of a node before it has run.

Mirror: tests/client/test_mapping.py.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS, array_length
from pronghorn.broker.wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    ProtocolError,
    error_from_wire,
)
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.messages import Error, MapResult
from pronghorn.broker.wire.values import decode_value, encode_inline

TARGET_MS = 4.0
CHUNK_ITEMS_MAX = 20_000
CHUNK_BYTES_MAX = 1 * MIB
IN_FLIGHT_MAX = 64
"""Chunks in flight: at least one for each of so many workers while a node is not yet known."""

AHEAD_ITEMS = 60_000
"""Items in flight: enough chunks of quick nodes for all workers, at bounded memory."""

_GROWTH = 16  # a chunk has at most so many times the items of the largest one that came back


class Chunk(msgspec.Struct):
    """Consecutive items on their way, by the number of the first."""

    first: int
    items: list[Any]
    body: bytes


class Results(NamedTuple):
    """Results of consecutive items; where `failed`, some of them are exceptions."""

    values: list[Any]
    failed: bool


class MapPlan:
    """The state of one `map`.

    Contract: send each chunk of `next_chunks`; hand each reply to `replied`; yield what `results`
    gives; until `finished`.
    """

    def __init__(
        self,
        node: str,
        items: Iterable[Any],
        *,
        ordered: bool,
        chunk_size: int | None,
        result_type: Any,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise InvalidArgumentError(f"chunk_size is {chunk_size}; it must be at least 1")
        self.node = node
        self._items = iter(items)
        self._exhausted = False
        self._ordered = ordered
        self._fixed_size = chunk_size
        self._size = chunk_size or 1  # items of the next chunk
        self._result_type = result_type
        self._results_type: Any = list[result_type]
        self._taken = 0  # items taken from the iterable
        self._in_flight = 0  # chunks
        self._items_in_flight = 0
        self._again: deque[Chunk] = deque()  # to be sent (again) before new ones
        # first item's number -> results of a chunk that can't be given out yet; only if ordered
        self._done: dict[int, Results] = {}
        self._next = 0  # number of the item that is given out next; only if ordered
        self._results: deque[Results] = deque()  # to be given out

    @property
    def finished(self) -> bool:
        """Whether every item's result was given out."""
        return (
            self._exhausted
            and not self._in_flight
            and not self._again
            and not self._results
            and not self._done
        )

    def next_chunks(self) -> Iterator[Chunk]:
        """Give the chunks that may be sent now; each counts as in flight when it is given.

        Raises:
            InvalidArgumentError: An item can't be encoded.
        """
        while self._in_flight < IN_FLIGHT_MAX and self._items_in_flight < AHEAD_ITEMS:
            if not self._again and not self._take():
                return
            chunk = self._again.popleft()
            self._in_flight += 1
            self._items_in_flight += len(chunk.items)
            yield chunk

    def replied(self, chunk: Chunk, reply: object) -> None:
        """Take in the reply to a chunk.

        What breaks the protocol in it, such as a result that is not of the node's type, is the
        `ProtocolError` of the items concerned: each item gets a result or an error.
        """
        self._in_flight -= 1
        self._items_in_flight -= len(chunk.items)
        if isinstance(reply, MapResult):
            self._adapt(len(chunk.items), reply)
            self._take_in(chunk, reply)
        else:
            assert isinstance(reply, Error), "a chunk is answered by a map result or an error"
            error = error_from_wire(reply.code, reply.message, reply.details)
            self._finish(chunk.first, Results([error] * len(chunk.items), failed=True))

    def results(self) -> Iterator[Results]:
        """Give out what can be given out now."""
        while self._results:
            yield self._results.popleft()

    def _take(self) -> bool:
        """Cut the next chunk from the items; `False` when there are none left."""
        items = list(islice(self._items, self._size))
        if not items:
            self._exhausted = True
            return False
        first = self._taken
        self._taken += len(items)
        self._again.extend(self._encode(first, items))
        return True

    def _encode(self, first: int, items: list[Any]) -> list[Chunk]:
        """Encode items as one chunk, or as several if they have too many bytes."""
        try:
            body = encode_inline(items)
        except (TypeError, *DECODE_ERRORS) as error:
            if len(items) == 1:
                raise InvalidArgumentError(
                    f"{self.node}: can't encode item {first}: {error}"
                ) from error
            body = b""
        if (body and len(body) <= CHUNK_BYTES_MAX) or len(items) == 1:
            return [Chunk(first, items, body)]
        half = len(items) // 2
        if self._fixed_size is None:
            self._size = max(1, min(self._size, half))
        return self._encode(first, items[:half]) + self._encode(first + half, items[half:])

    def _adapt(self, count: int, reply: MapResult) -> None:
        """Choose the size of the next chunks by the run time and the bytes of this one."""
        if self._fixed_size is not None or not count or array_length(reply.values) < count:
            return
        wanted = int(TARGET_MS / max(1e-5, reply.run_ms / count))  # in that order NaN is 1e-5
        result_bytes = max(1, memoryview(reply.values).nbytes)
        by_bytes = count * CHUNK_BYTES_MAX // result_bytes
        # A small chunk that comes back late must not shrink what larger ones have shown since.
        grown = max(self._size, count * _GROWTH)
        self._size = max(1, min(wanted, by_bytes, grown, CHUNK_ITEMS_MAX))

    def _take_in(self, chunk: Chunk, reply: MapResult) -> None:
        """Take in the results of a chunk; what was not begun of it is sent again."""
        items, first = chunk.items, chunk.first
        try:
            values, failed = self._decoded(reply)
            failures = reply.failures or ()
            count = len(values)
            if not 1 <= count <= len(items) or any(not 0 <= one.index < count for one in failures):
                raise ProtocolError(
                    f"{self.node}: a chunk of {len(items)} items has {count} results and failures "
                    f"of {[one.index for one in failures]}",
                    ErrorDetails(outcome="maybe_executed", node=self.node),
                )
        except ProtocolError as error:
            self._finish(first, Results([error] * len(items), failed=True))
            return
        for one in failures:
            values[one.index] = error_from_wire(one.code, one.message, one.details)
        self._finish(first, Results(values, failed or bool(failures)))
        if count < len(items):
            self._again.extendleft(reversed(self._encode(first + count, items[count:])))

    def _decoded(self, reply: MapResult) -> Results:
        """Decode the values of a chunk, also those that stand for failed items.

        Raises:
            ProtocolError: They are no array.
        """
        if not reply.failures or self._result_type is Any:  # else nils may not be of the type
            try:
                return Results(decode_value(reply.values, (), self._results_type), failed=False)
            except ProtocolError:  # find out which
                pass
        values = [self._value(one) for one in decode_value(reply.values, (), list[msgspec.Raw])]
        return Results(values, failed=any(isinstance(one, ProtocolError) for one in values))

    def _value(self, raw: msgspec.Raw) -> Any:
        try:
            return decode_value(raw, (), self._result_type)
        except ProtocolError as error:
            return error

    def _finish(self, first: int, results: Results) -> None:
        if not self._ordered:
            self._results.append(results)
            return
        self._done[first] = results
        while self._next in self._done:
            ready = self._done.pop(self._next)
            self._next += len(ready.values)
            self._results.append(ready)
