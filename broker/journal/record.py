"""The records of the journal: small deltas, each sealed with a version and a checksum. Pure.

A run is the sequence of its records; nothing is ever rewritten. `seal` and `unseal` stand between a
record and its bytes, and take in the place where it is kept: a record found in another's place is
damage too. FORMAT.md, "Records", is the specification.

Mirror: tests/broker/journal/test_record.py.
"""

from struct import Struct as Layout
from typing import Final, Literal
from zlib import crc32

import msgspec
from msgspec import Raw

from ..wire.codec import DECODE_ERRORS
from ..wire.errors import ErrorDetails
from ..wire.messages import NIL, ItemFailure
from .errors import DamageError, NewerFormatError

FORMAT_VERSION: Final = 1

SECRET_BYTES: Final = 16
DIGEST_BYTES: Final = 32  # of blake2b
SEQUENCE_BYTES: Final = 8
INDEX_BITS: Final = 40
INDEX_MAX: Final = 2**INDEX_BITS - 1
"""Records of one generation: four months of 100,000 a second."""

GENERATION_MAX: Final = 2**23 - 1  # so that a sequence number fits into 63 bits

_HEADER: Final = Layout("<BI")  # version, checksum
HEADER_BYTES: Final = _HEADER.size

Status = Literal["open", "done", "failed", "cancelled", "interrupted", "poisoned"]
EndStatus = Literal["done", "failed", "cancelled", "interrupted", "poisoned"]
KeptDurability = Literal["batched", "sync"]


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``[code, message, details]``: why a run failed, as its caller is told."""

    code: str
    message: str
    details: ErrorDetails


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A run begins to exist; its number, `run`, is this record's sequence number.

    Attributes:
        run: Number of the run.
        previous: 0.
        secret: The part of the run's id that can't be guessed.
        node: Full name of the node.
        owner: Whose run it is.
        at_ns: When, nanoseconds since 1970, for people and for retention.
        value: Parameters, or the array of parameters of a map's items; nil where kept apart.
        buffers: How many buffers belong to `value`.
        apart: Digests of what is kept apart: of `value` itself, then of its buffers.
        codec: How `value` is encoded: 0 msgpack, 1 a msgpack ``bin`` that holds JSON.
        items: Number of items of a map, `None` for a call.
        durability: What its caller asked for.
        key: Idempotency key.
        at_most_once: Whether it must not be begun a second time.
        attempts_max: How often it may be begun.
        options: The request's other options, as they came.
    """

    run: int
    previous: int
    secret: bytes
    node: str
    owner: str
    at_ns: int
    value: Raw = NIL
    buffers: int = 0
    apart: tuple[bytes, ...] = ()
    codec: int = 0
    items: int | None = None
    durability: KeptDurability = "sync"
    key: str | None = None
    at_most_once: bool = False
    attempts_max: int = 3
    options: Raw = NIL


class Started(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """An attempt begins; its token is this record's sequence number.

    Not written for the first attempt of a run that may be begun again: that one's token is the
    number of the record that made it possible, `Accepted` or `Reopened`.
    """

    run: int
    previous: int
    attempt: int
    at_ns: int


class AttemptLost(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The worker of an attempt died."""

    run: int
    previous: int
    token: int
    cause: str
    at_ns: int


class TaskDone(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """A part of a run has its result: a task of a workflow, or a range of a map's items.

    Attributes:
        run: Number of the run.
        previous: Sequence number of the run's record before this one.
        token: Of the attempt that it is a result of.
        at_ns: When.
        task: Name of the task, "" for a range of items.
        first: Index of the first item of the range.
        count: Number of items of the range.
        value: Result, or the array of results with nil where `failures` has the item.
        buffers: How many buffers belong to `value`.
        apart: As in `Accepted`.
        failures: Of items, with indexes within the range.
    """

    run: int
    previous: int
    token: int
    at_ns: int
    task: str = ""
    first: int = 0
    count: int = 0
    value: Raw = NIL
    buffers: int = 0
    apart: tuple[bytes, ...] = ()
    failures: tuple[ItemFailure, ...] | None = None


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """A run has ended.

    Attributes:
        run: Number of the run.
        previous: Sequence number of the run's record before this one.
        token: Of the attempt that ended it; 0 where none did.
        at_ns: When.
        status: How.
        run_ns: Run time of the node alone.
        value: Result; nil where kept apart, and of a map, whose ranges have it.
        buffers: How many buffers belong to `value`.
        apart: As in `Accepted`.
        codec: As in `Accepted`.
        failure: Why, unless `status` is ``done``.
    """

    run: int
    previous: int
    token: int
    at_ns: int
    status: EndStatus
    run_ns: int = 0
    value: Raw = NIL
    buffers: int = 0
    apart: tuple[bytes, ...] = ()
    codec: int = 0
    failure: Failure | None = None


class Reopened(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """A run that ended without a result is to be tried again, because somebody asked for it."""

    run: int
    previous: int
    at_ns: int


class Advanced(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """A run of a workflow has come further: what its conductor has taken in since it told last.

    Attributes:
        run: Number of the run.
        previous: Sequence number of the run's record before this one.
        token: Of the attempt.
        at_ns: When.
        value: What was taken in, which only run hosts can read: an array, whose large values are
            buffers.
        buffers: How many belong to `value`.
        apart: As in `Accepted`.
        tasks: Name and status of each task that has ended, for people.
        moved: Whether anything is done by it that no later attempt does again; else it only tells
            of the attempt.
    """

    run: int
    previous: int
    token: int
    at_ns: int
    value: Raw = NIL
    buffers: int = 0
    apart: tuple[bytes, ...] = ()
    tasks: tuple[tuple[str, str], ...] = ()
    moved: bool = True


Record = Accepted | Started | AttemptLost | TaskDone | Ended | Reopened | Advanced
WithValue = Accepted | TaskDone | Ended | Advanced
WITH_VALUE: Final = frozenset({Accepted, TaskDone, Ended, Advanced})
"""The same, to look a type up in: `isinstance` takes ten times as long."""

encode_body = msgspec.msgpack.Encoder().encode
decode_record: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def sequence_of(generation: int, index: int) -> int:
    """Return the sequence number of a generation's record of that index, from 1."""
    assert 0 < generation <= GENERATION_MAX
    assert 0 <= index <= INDEX_MAX
    return generation << INDEX_BITS | index


def generation_of(sequence: int) -> int:
    """Return the generation of a sequence number."""
    return sequence >> INDEX_BITS


def key_of(sequence: int) -> bytes:
    """Return the key of a sequence number: keys are in the order of their numbers."""
    return sequence.to_bytes(SEQUENCE_BYTES, "big")


def sequence_at(key: bytes) -> int:
    """Return the sequence number that a key stands for."""
    return int.from_bytes(key, "big")


def seal(place: bytes, body: bytes) -> bytes:
    """Put version and checksum before what is to be kept at a place: name of the table and key."""
    return _HEADER.pack(FORMAT_VERSION, _checksum(place, FORMAT_VERSION, body)) + body


def unseal(place: bytes, sealed: bytes | memoryview) -> bytes:
    """Return what was sealed for that place.

    Raises:
        DamageError: It is not what was written there.
        NewerFormatError: It is, by a newer version.
    """
    if len(sealed) < HEADER_BYTES:
        raise DamageError(f"{_shown(place)}: {len(sealed)} bytes are no record")
    version, checksum = _HEADER.unpack_from(sealed)
    body = bytes(sealed[HEADER_BYTES:])
    if _checksum(place, version, body) != checksum:
        raise DamageError(f"{_shown(place)}: the checksum is wrong")
    if version != FORMAT_VERSION:
        raise NewerFormatError(
            f"{_shown(place)}: version {version} is not known, only {FORMAT_VERSION}"
        )
    return body


def read_record(place: bytes, sealed: bytes | memoryview) -> Record:
    """Return the record that is kept at a place.

    Raises:
        DamageError: It is not what was written there, or can't be read.
    """
    return parse_record(place, unseal(place, sealed))


def parse_record(place: bytes, body: bytes) -> Record:
    """Return the record that was unsealed from a place.

    Raises:
        DamageError: It can't be read.
    """
    try:
        return decode_record.decode(body)
    except DECODE_ERRORS as error:
        raise DamageError(f"{_shown(place)}: {error}") from error


def _checksum(place: bytes, version: int, body: bytes) -> int:
    return crc32(body, crc32(place + bytes((version,))))


def _shown(place: bytes) -> str:
    """Name a place for people: the table, then the key as a number or in hex."""
    table, _, key = place.partition(b":")
    if len(key) == SEQUENCE_BYTES:
        return f"{table.decode(errors='replace')} {sequence_at(key)}"
    return f"{table.decode(errors='replace')} {key.hex()}"
