"""What stands in the tables beside the records. Pure.

FORMAT.md, "Tables", is the specification.

Mirror: tests/broker/journal/test_rows.py.
"""

from collections.abc import Callable
from enum import Enum
from hashlib import blake2b
from string import hexdigits
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from ..wire.codec import DECODE_ERRORS
from .errors import DamageError
from .fold import RunState
from .record import DIGEST_BYTES, SECRET_BYTES, SEQUENCE_BYTES, Status, key_of, seal, unseal

KEY_HASH_BYTES: Final = 16
APART_BYTES_MIN: Final = 1024
"""Values from this size on are kept apart from their record, once for each content. LMDB would put
values of half a page into pages of their own anyway."""


class Table(Enum):
    """The tables of a store, by their names."""

    META = b"meta"  # a name -> one of the rows below; LMDB keeps entries of its own among them
    LOG = b"log"  # sequence number -> record
    OPEN = b"open"  # run -> its state, while it is open
    DONE = b"done"  # run -> its state, when it has ended
    KEYS = b"keys"  # hash of owner and idempotency key -> run
    VALUES = b"values"  # digest -> content
    USES = b"uses"  # digest -> how many places in records name it

    def __init__(self, name_: bytes) -> None:
        self._prefix = name_ + b":"

    def place(self, key: bytes) -> bytes:
        """Return what checksums of a row take in besides its content."""
        return self._prefix + key


class Format(msgspec.Struct, frozen=True, array_like=True):
    """``format``: whose file that is; written once."""

    program: str
    store_id: bytes
    created_at_ns: int


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """``counts``: what the other tables hold; written with each commit.

    Attributes:
        last: Sequence number of the newest record.
        epoch: The broker's epoch that the generation of `last` was given to.
        records: Rows of the log.
        open: Open runs.
        done: Ended runs.
        keys: Idempotency keys.
        values: Values kept apart.
        bytes: Bytes of all records and values.
    """

    last: int = 0
    epoch: str = ""
    records: int = 0
    open: int = 0
    done: int = 0
    keys: int = 0
    values: int = 0
    bytes: int = 0


class Pruned(msgspec.Struct, frozen=True, array_like=True):
    """``pruned``: what retention has removed so far.

    Attributes:
        runs: Number of runs.
        records: Their records.
        bytes: Their bytes, values that nobody else used included.
        through: The newest of these runs: of runs up to it, those that have ended may be gone.
        at_ns: When that was done last, nanoseconds since 1970.
    """

    runs: int = 0
    records: int = 0
    bytes: int = 0
    through: int = 0
    at_ns: int = 0


class Generation(msgspec.Struct, frozen=True, array_like=True):
    """``generation`` and its number in 4 bytes: which start of a broker it was given to."""

    epoch: str
    at_ns: int


_HEX_DIGITS: Final = frozenset(hexdigits)
_ID_LENGTH: Final = 2 * (SEQUENCE_BYTES + SECRET_BYTES)


class Uses(msgspec.Struct, frozen=True, array_like=True):
    """``uses``: how many places in records name a value that is kept apart, and its bytes."""

    places: int
    size: int


class Filter(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Which runs are listed: those that meet all that is given.

    Attributes:
        statuses: One of these.
        node: Full name of the node.
        owner: Whose they are.
        since_ns: Accepted at or after that, nanoseconds since 1970.
        until_ns: Accepted before that.
    """

    statuses: tuple[Status, ...] = ()
    node: str | None = None
    owner: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def meets(self, state: RunState) -> bool:
        """Whether a run is one of these."""
        return (
            (not self.statuses or state.status in self.statuses)
            and self.node in (None, state.node)
            and self.owner in (None, state.owner)
            and (self.since_ns is None or state.accepted_at_ns >= self.since_ns)
            and (self.until_ns is None or state.accepted_at_ns < self.until_ns)
        )


FORMAT_KEY: Final = b"format"
COUNTS_KEY: Final = b"counts"
PRUNED_KEY: Final = b"pruned"

encode_row = msgspec.msgpack.Encoder().encode
decode_format = msgspec.msgpack.Decoder(Format).decode
decode_counts = msgspec.msgpack.Decoder(Counts).decode
decode_pruned = msgspec.msgpack.Decoder(Pruned).decode
decode_generation = msgspec.msgpack.Decoder(Generation).decode
decode_uses = msgspec.msgpack.Decoder(Uses).decode
decode_state = msgspec.msgpack.Decoder(RunState).decode
decode_number = msgspec.msgpack.Decoder(int).decode

Row = TypeVar("Row")


def decoded(decode: Callable[[bytes], Row], body: bytes, table: Table) -> Row:
    """Decode a row that was unsealed.

    Raises:
        DamageError: It can't be read.
    """
    try:
        return decode(body)
    except DECODE_ERRORS as error:
        raise DamageError(f"a row of {table.name.lower()}: {error}") from error


def generation_key(generation: int) -> bytes:
    """Return the key of a generation's row."""
    return b"generation" + generation.to_bytes(4, "big")


def sealed_row(table: Table, key: bytes, row: object) -> bytes:
    """Encode a row as it is kept."""
    return seal(table.place(key), encode_row(row))


def sealed_state(state: RunState) -> bytes:
    """Encode the row of a run as it is kept in the table that its status says."""
    return sealed_row(table_of(state), key_of(state.run), state)


def table_of(state: RunState) -> Table:
    """Return the table that a run's row is in."""
    return Table.OPEN if state.status == "open" else Table.DONE


def unsealed(table: Table, key: bytes, sealed: bytes | memoryview) -> bytes:
    """Return what was sealed for a row.

    Raises:
        DamageError: It is not what was written there.
    """
    return unseal(table.place(key), sealed)


def key_hash(owner: str, key: str) -> bytes:
    """Return what an owner's idempotency key is looked up by."""
    return blake2b(encode_row((owner, key)), digest_size=KEY_HASH_BYTES).digest()


def digest_of(content: bytes | Raw) -> bytes:
    """Return what a value that is kept apart is looked up by."""
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def format_run_id(run: int, secret: bytes) -> str:
    """Return the id of a run as its owner knows it: its number, and what can't be guessed."""
    return f"{run:016x}{secret.hex()}"


def is_hex(text: str) -> bool:
    """Whether a text is of hex digits, and of nothing else that `int` takes for some."""
    return set(text) <= _HEX_DIGITS


def parse_run_id(text: str) -> tuple[int, bytes]:
    """Return a run's number and secret.

    Raises:
        ValueError: That is no id of a run.
    """
    if len(text) != _ID_LENGTH or not is_hex(text):
        raise ValueError(f"{text!r:.80} is no id of a run: it has {_ID_LENGTH} hex digits")
    return int(text[: 2 * SEQUENCE_BYTES], 16), bytes.fromhex(text[2 * SEQUENCE_BYTES :])
