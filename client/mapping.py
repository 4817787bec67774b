"""How `map` cuts items into chunks, and keeps them in flight. Pure.

How large a chunk is follows from what the last ones have taken (wire/chunks.py).

Mirror: tests/client/test_mapping.py.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from pronghorn.broker.wire.chunks import CHUNK_BYTES_MAX, IN_FLIGHT_MAX, next_size
from pronghorn.broker.wire.codec import DECODE_ERRORS, array_length
from pronghorn.broker.wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    ProtocolError,
    error_from_wire,
)
from pronghorn.broker.wire.messages import Error, MapResult
from pronghorn.broker.wire.runs import ITEMS_MAX
from pronghorn.broker.wire.values import encode_inline

from .results import ResultDecoder, ResultOrder, Results

AHEAD_ITEMS = 60_000
"""Items in flight: enough chunks of quick nodes for all workers, at bounded memory."""


class Chunk(msgspec.Struct):
    """Consecutive items on their way, by the number of the first."""

    first: int
    items: list[Any]
    body: bytes


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
        self._fixed_size = chunk_size
        self._size = chunk_size or 1  # items of the next chunk
        self._decoder = ResultDecoder(node, result_type)
        self._taken = 0  # items taken from the iterable
        self._in_flight = 0  # chunks
        self._items_in_flight = 0
        self._again: deque[Chunk] = deque()  # to be sent (again) before new ones
        self._results = ResultOrder(ordered=ordered)

    @property
    def finished(self) -> bool:
        """Whether every item's result was given out."""
        return (
            self._exhausted and not self._in_flight and not self._again and self._results.is_empty
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
            self._results.add(chunk.first, Results([error] * len(chunk.items), failed=True))

    def results(self) -> Iterator[Results]:
        """Give out what can be given out now."""
        return self._results.given_out()

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
                raise _unencodable(self.node, first, error) from error
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
        result_bytes = memoryview(reply.values).nbytes
        self._size = next_size(self._size, count, reply.run_ms, result_bytes)

    def _take_in(self, chunk: Chunk, reply: MapResult) -> None:
        """Take in the results of a chunk; what was not begun of it is sent again."""
        items, first = chunk.items, chunk.first
        try:
            results = self._decoder.decode(reply.values, reply.failures, len(items))
        except ProtocolError as error:
            self._results.add(first, Results([error] * len(items), failed=True))
            return
        self._results.add(first, results)
        count = len(results.values)
        if count < len(items):
            self._again.extendleft(reversed(self._encode(first + count, items[count:])))


def encode_items(node: str, items: Iterable[Any]) -> bytes:
    """Encode all items of a map that is accepted as a whole.

    Raises:
        InvalidArgumentError: They are too many, or one can't be encoded.
    """
    taken = list(islice(items, ITEMS_MAX + 1))
    if len(taken) > ITEMS_MAX:
        details = ErrorDetails(outcome="not_started", node=node, limit=ITEMS_MAX)
        why = f"a recorded map has at most {ITEMS_MAX:,} items, and these are more"
        raise InvalidArgumentError(f"{node}: {why}", details)
    try:
        return encode_inline(taken)
    except (TypeError, *DECODE_ERRORS):
        for index, item in enumerate(taken):
            try:
                encode_inline(item)
            except (TypeError, *DECODE_ERRORS) as error:
                raise _unencodable(node, index, error) from error
        raise


def _unencodable(node: str, index: int, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(f"{node}: can't encode item {index}: {error}")
