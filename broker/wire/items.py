"""The results of a chunk's items, kept where they survive the worker that made them.

A chunk's items run one after the other. The result of each is encoded as soon as it exists and put
into the area behind the worker's page (wire/slots.py), and only then counted in the slot's *mark*.
So when the worker dies, all that the mark counts is whole, the next item is the only one in doubt,
and those behind it were not begun.

An item that fails leaves its error in the area, as a msgpack ext of `_EXT_FAILURE`.

Mirror: tests/broker/wire/test_items.py.
"""

from collections.abc import Callable
from mmap import mmap
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from .errors import ErrorDetails, PronghornError
from .messages import NIL, ItemFailure, array_start

ITEM: Final = 1 << 40
"""A mark is the number of items that are over times this, plus the bytes of their results."""

_FAILED: Final = 1 << 63  # added to the mark once an item has failed
_EXT_FAILURE: Final = -77  # negative codes are not for applications
_ITEMS_MAX: Final = _FAILED // ITEM

_encode = msgspec.msgpack.Encoder().encode
_decode_values = msgspec.msgpack.Decoder(list[Raw]).decode
_decode_ext = msgspec.msgpack.Decoder(Ext).decode
_decode_failure = msgspec.msgpack.Decoder(tuple[str, str, ErrorDetails]).decode
_EXT_FIRST_BYTES: Final = frozenset((*range(0xD4, 0xD9), *range(0xC7, 0xCA)))


class Mark(NamedTuple):
    """How far a chunk came: items that are over, bytes of their results, whether any failed."""

    items: int
    size: int
    failed: bool

    @classmethod
    def of(cls, word: int) -> "Mark":
        """Take a mark apart."""
        counted = word & ~_FAILED
        return cls(counted // ITEM, counted % ITEM, word >= _FAILED)


class ItemResults:
    """A worker's side: takes in the results of one chunk, each as soon as it exists.

    The compiled loop of a node (worker/invoker.py) writes the plain ones itself.

    Args:
        area: Where results go, at least `area_bytes(limit)` long.
        words: Words of which one is the mark; it is 0 as long as no item is over.
        word: Which one.
        limit: Most bytes of results; the one that goes beyond is the last that is taken in.
        encode: Encodes one result.
        unencodable: Makes the error for a result that `encode` has raised something for.
        too_large: Makes the error for a result that by itself has more bytes than the limit.
    """

    __slots__ = ("_too_large", "_unencodable", "area", "encode", "limit", "word", "words")

    def __init__(
        self,
        area: mmap | bytearray | memoryview,
        words: memoryview,
        word: int,
        *,
        limit: int,
        encode: Callable[[Any], bytes],
        unencodable: Callable[[BaseException, Any], PronghornError],
        too_large: Callable[[int], PronghornError],
    ) -> None:
        self.area = area
        self.words = words
        self.word = word
        self.limit = limit
        self.encode = encode
        self._unencodable = unencodable
        self._too_large = too_large

    @property
    def mark(self) -> Mark:
        """How far the chunk came."""
        return Mark.of(self.words[self.word])

    @property
    def is_full(self) -> bool:
        """Whether no further item may be begun."""
        return self.mark.size > self.limit

    def fail(self, error: PronghornError) -> None:
        """Take in that the next item has failed."""
        failure = _encode((error.code, error.message, error.details))
        self.put(_encode(Ext(_EXT_FAILURE, failure)), _FAILED)

    def refuse(self, value: object, error: BaseException) -> None:
        """Take in that the next item's result can't be encoded."""
        self.fail(self._unencodable(error, value))

    def put_last(self, body: bytes) -> None:
        """Take in the result that goes beyond the limit; `is_full` from then on."""
        if len(body) > self.limit:
            self.fail(self._too_large(len(body)))
        else:
            self.put(body)

    def collect(self) -> tuple[Raw, tuple[ItemFailure, ...]]:
        """Give the results as one array, nil where an item failed, and the failures."""
        mark = self.mark
        return collect(bytes(self.area[: mark.size]), mark)

    def put(self, body: bytes, flag: int = 0) -> None:
        """Take in the next item's result, encoded, or its failure with a flag."""
        word = self.words[self.word]
        position = Mark.of(word).size
        self.area[position : position + len(body)] = body
        self.words[self.word] = (word | flag) + ITEM + len(body)


def collect(
    body: bytes, mark: Mark, in_doubt: PronghornError | None = None
) -> tuple[Raw, tuple[ItemFailure, ...]]:
    """Make one array of the results in an area, nil where an item failed, and the failures.

    Args:
        body: The area as far as the mark counts its bytes.
        mark: Of the chunk.
        in_doubt: What is told of the item behind those that are over, if it was begun.
    """
    count = mark.items
    if mark.failed:
        values, failures = _parted(_decode_values(array_start(count) + body))
        body = b"".join(values)
    else:
        failures = []
    if in_doubt is not None:
        failures.append(ItemFailure(count, in_doubt.code, in_doubt.message, in_doubt.details))
        count += 1
        body += bytes(NIL)
    return Raw(array_start(count) + body), tuple(failures)


def _parted(raws: list[Raw]) -> tuple[list[bytes], list[ItemFailure]]:
    """Part results from errors; nil stands for an error among the results."""
    values: list[bytes] = []
    failures: list[ItemFailure] = []
    for index, raw in enumerate(raws):
        value = bytes(raw)
        ext = _decode_ext(value) if value[0] in _EXT_FIRST_BYTES else None
        if ext is not None and ext.code == _EXT_FAILURE:
            failures.append(ItemFailure(index, *_decode_failure(ext.data)))
            value = bytes(NIL)
        values.append(value)
    return values, failures
