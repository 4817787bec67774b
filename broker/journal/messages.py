"""The private stream between a broker and the journal's writer: messages both ways. Pure.

One AF_UNIX stream per broker, framed as the links to workers are (wire/link.py): a message with
`buffers` n owns the next n frames. Both ends are of the same installation.

The broker says `Hello`, waits for `Welcome`, and then writes records (record.py) as they come: the
first has the number after `Welcome.acknowledged`, each other the next one. Questions may be mixed
in; what is answered is what was kept by then. Those about records for which the store has no room
are answered when it has, after others.

A record that can't be the next one of its run is `Refused`, which costs that run what the broker
meant to write of it, and nobody else anything: all that came behind it is passed over until the
broker says `Hello` again. It gets another `Welcome`, and writes from there on what is not kept,
with `Void` where records of that run were. What can't be read, or is out of place, ends the stream:
`Broken`; the supervisor gives both ends another one (keeper.py).

Mirror: tests/broker/journal/test_messages.py.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from ..wire.link import Buffer, HistoryPart, MessageReader
from .fold import RunState
from .record import Accepted, Record
from .rows import Counts, Filter, Pruned


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Broker, first of all: whose records come."""

    epoch: str


class FindRun(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Broker: the state of the run of an id. Answered by `FoundRun`."""

    id: int
    run: int
    secret: bytes


class FindKey(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Broker: the state of the run of an idempotency key. Answered by `FoundRun`."""

    id: int
    owner: str
    key: str


class ListRuns(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Broker: runs, newest first. Answered by `FoundRuns`."""

    id: int
    chosen: Filter
    before: int | None
    limit: int


class ReadEvents(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Broker: records of a run from a sequence number on. Answered by `FoundEvents`."""

    id: int
    run: int
    start: int
    limit: int


class ReadValue(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Broker: the value of a record of a run, its parameters or a result. Answered by `FoundValue`.

    `sequence` is the record's number; 0 stands for the record that ended the run.
    """

    id: int
    run: int
    sequence: int


class ListOpen(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Broker: open runs after one, in the order of acceptance. Answered by `FoundOpen`."""

    id: int
    after: int
    limit: int


class AskStatistics(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Broker: what the store holds. Answered by `Statistics`."""

    id: int


class Hurry(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Broker: the records so far are not left to gather; `waited_for`: somebody waits for them."""

    waited_for: bool = True


class Void(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Broker: nothing is kept under this number; the record that had it was refused."""


class ReadHistory(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """Broker: what a run of a workflow has come through, behind a record. By `FoundHistory`."""

    id: int
    run: int
    after: int


class ListKeys(msgspec.Struct, frozen=True, array_like=True, tag=64):
    """Broker: hashes of idempotency keys, in order, behind one. Answered by `FoundKeys`."""

    id: int
    after: bytes
    limit: int


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Journal: all records of the epoch up to that number are kept; `refusing` as in `Refusing`."""

    acknowledged: int
    refusing: str


class Committed(msgspec.Struct, frozen=True, array_like=True, tag=33, gc=False):
    """Journal: all records up to that number are kept, whatever dies."""

    through: int


class Refusing(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Journal: accept nothing new, and why; "" when it can take new work again.

    What belongs to open runs goes on being written: it is kept as soon as there is room.
    """

    reason: str


class FoundRun(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """Journal: that run, or `None`."""

    id: int
    state: RunState | None


class FoundRuns(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """Journal: these runs; more follow before `before` unless it is `None`."""

    id: int
    runs: tuple[RunState, ...]
    before: int | None


class FoundEvents(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """Journal: these records of the run, with their numbers; large values are not in them."""

    id: int
    events: tuple[tuple[int, Record], ...]


class FoundKeys(msgspec.Struct, frozen=True, array_like=True, tag=65):
    """Journal: these hashes; fewer than were asked for are the last."""

    id: int
    hashes: tuple[bytes, ...]


class FoundValue(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """Journal: that value; owns the next `buffers` frames."""

    id: int
    value: Raw
    codec: int
    buffers: int


class FoundOpen(msgspec.Struct, frozen=True, array_like=True, tag=39):
    """Journal: these open runs; large parameters have to be read."""

    id: int
    runs: tuple[tuple[RunState, Accepted], ...]


class Statistics(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Journal: what the store holds."""

    id: int
    counts: Counts
    pruned: Pruned
    file_bytes: int
    used_bytes: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Journal: a question has no answer, for what it is about is damaged or not there.

    `is_missing` tells that there is no such run, or that it is kept no longer.
    """

    id: int
    message: str
    is_missing: bool = False


class Broken(msgspec.Struct, frozen=True, array_like=True, tag=42):
    """Journal, last of all: what has come can't be read, or is out of place: a defect of ours."""

    message: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Journal: that record can't be the next one of its run; nothing from it on is kept.

    What came before it is, by the next `Welcome`. What has been asked is to be asked again.
    """

    sequence: int
    run: int
    message: str


class FoundHistory(msgspec.Struct, frozen=True, array_like=True, tag=63):
    """Journal: these records, in order; `is_last` tells that no further ones follow."""

    id: int
    parts: tuple[HistoryPart, ...]
    is_last: bool
    buffers: int


Question = (
    FindRun
    | FindKey
    | ListKeys
    | ListRuns
    | ReadEvents
    | ReadValue
    | ReadHistory
    | ListOpen
    | AskStatistics
)
ToJournal = Record | Void | Hello | Hurry | Question
Answer = (
    FoundRun
    | FoundKeys
    | FoundRuns
    | FoundEvents
    | FoundValue
    | FoundHistory
    | FoundOpen
    | Statistics
    | Failed
)
FromJournal = Welcome | Committed | Refusing | Refused | Broken | Answer

Buffers = Sequence[bytes]
Entry = tuple[Record | Void, Buffers]
"""What has the next number on a stream, with the buffers of its value."""

encode_message = msgspec.msgpack.Encoder().encode
_decode_to_journal = msgspec.msgpack.Decoder(ToJournal).decode
_decode_from_journal = msgspec.msgpack.Decoder(FromJournal).decode


def journal_end() -> MessageReader[ToJournal]:
    """Make the reader for the journal's end of the stream."""
    return MessageReader(_decode_to_journal)


def broker_end() -> MessageReader[FromJournal]:
    """Make the reader for the broker's end of the stream."""
    return MessageReader(_decode_from_journal)


def frames_of(message: ToJournal | FromJournal, *buffers: Buffer) -> tuple[Buffer, ...]:
    """Return the frames of a message with its buffers."""
    return encode_message(message), *buffers
