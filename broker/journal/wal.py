"""The write-ahead log: records that somebody waits for, kept before the store has them.

A commit of the store is two syncs one after the other: of its pages, then of the page that leads to
them. For a few records that is dear, and who waits for them waits for both. So they are written
behind one another into a file whose blocks are there already, which is one sync; the store takes
them in with its next commit, many at once, and then the file is begun anew. After a crash what the
store does not have is read from here.

Nothing is ever erased: frames that the store has had stay until others are written over them. What
is there tells by itself whether it counts: a frame carries a checksum, of the store and the epoch
that it belongs to as well, and the numbers of its records, and counts only if these follow the ones
before. FORMAT.md, "The write-ahead log", is the specification.

Guard: ``scripts/bench durable``. Mirror: tests/broker/journal/test_wal.py.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from struct import Struct as Layout
from typing import Final, NamedTuple, Self
from zlib import crc32

from ..wire.codec import DECODE_ERRORS
from ..wire.limits import KIB, MIB
from ..wire.link import LENGTH, Buffer
from .errors import DamageError, HistoryError
from .ledger import Ledger
from .messages import Entry, encode_message, journal_end
from .place import NEW_WAL_NAME, WAL_NAME, sync_folder
from .rows import Counts

WAL_BYTES: Final = MIB
"""Of the file: a few thousand small records, many times as many as the store is behind by."""

BLOCK_BYTES: Final = 4 * KIB
"""What is written is so many bytes, or a multiple: larger blocks no disk asks for."""

_WAL_BYTES_MIN: Final = 64 * KIB
_DISK_SHARE: Final = 1 / 64  # at most so much of it
# Each write returns when it is on the disk, as a sync after it would.
_FLAGS: Final = os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC

_MAGIC: Final = b"\xf1PW\x01"  # to look for frames behind damage by
_HEADER: Final = Layout("<4sIIQI")  # magic, checksum of the rest, bytes of the body, first, count
_LOOKED_AT_TIMES: Final = 4  # the bytes of the file, at most, to look for frames behind damage
_CHECKED: Final = Layout("<IQI")  # the last three


class Frame(NamedTuple):
    """Records that were written together."""

    first: int  # number of the first of them
    entries: list[Entry]


def seed_of(store_id: bytes, epoch: str) -> int:
    """Return what the checksums of an epoch's frames begin with."""
    return crc32(epoch.encode(), crc32(store_id))


def body_of(entries: Sequence[Entry]) -> bytes:
    """Encode records with their buffers, as they come on a broker's stream."""
    pieces: list[Buffer] = []
    for record, buffers in entries:
        for frame in (encode_message(record), *buffers):
            pieces.append(LENGTH.pack(len(frame)))
            pieces.append(frame)
    return b"".join(pieces)


def frame_of(seed: int, first: int, count: int, body: bytes) -> bytes:
    """Encode a frame, of so many records from the first on."""
    checked = _CHECKED.pack(len(body), first, count)
    return _HEADER.pack(_MAGIC, crc32(body, crc32(checked, seed)), len(body), first, count) + body


def read_frames(content: bytes, seed: int, last: int) -> list[Frame]:
    """Return what follows the store's last record, in order.

    Args:
        content: Of the file.
        seed: `seed_of` the store and its epoch.
        last: Number of the store's last record.

    Raises:
        DamageError: Something is missing before records that are there, or can't be read.
    """
    frames: list[Frame] = []
    position, expected = 0, last + 1
    while (found := _frame_at(content, position, seed)) is not None:
        first, count, body, end = found
        if first > expected:
            raise _missing(expected, first)
        if first + count <= expected and frames:  # of the round before, behind the last one's
            break
        if first + count > expected:
            entries = _entries_of(body, first, count)[expected - first :]
            frames.append(Frame(expected, entries))
            expected = first + count
        position = end
    _check_behind(content, position, seed, expected)
    return frames


def _frame_at(content: bytes, position: int, seed: int) -> tuple[int, int, bytes, int] | None:
    """Return first number, count, body and end of the frame that is whole there, if one is."""
    if position + _HEADER.size > len(content):
        return None
    magic, checksum, size, first, count = _HEADER.unpack_from(content, position)
    start = position + _HEADER.size
    if magic != _MAGIC or start + size > len(content):
        return None
    body = content[start : start + size]
    if crc32(body, crc32(_CHECKED.pack(size, first, count), seed)) != checksum:
        return None
    return first, count, body, start + size


def _check_behind(content: bytes, position: int, seed: int, expected: int) -> None:
    """Tell damage from a frame that was cut off: behind that there is nothing newer."""
    # What clients have sent may hold beginnings of frames, of which each would be as long as the
    # file. Frames of ours have as many bytes as the file, all together.
    left = _LOOKED_AT_TIMES * len(content)
    end = len(content) - _HEADER.size
    while left > 0 and 0 <= (position := content.find(_MAGIC, position)) <= end:
        _, _, size, first, _ = _HEADER.unpack_from(content, position)
        if first >= expected:
            left -= min(size, len(content))
            if _frame_at(content, position, seed) is not None:
                raise _missing(expected, first)
        position += 1


def _missing(expected: int, first: int) -> DamageError:
    return DamageError(
        f"record {expected} and maybe others are damaged or missing, {first} follows"
    )


def _entries_of(body: bytes, first: int, count: int) -> list[Entry]:
    try:
        entries = journal_end().feed(body)
    except DECODE_ERRORS as error:
        raise DamageError(f"record {first} and those behind it: {error}") from error
    if len(entries) != count:
        raise DamageError(f"{len(entries)} records of {count} are at {first}")
    return entries  # type: ignore[return-value]


class WriteAheadLog:
    """The file, open to write. Owns its descriptor.

    It is written past the page cache where the file system lets it, in whole blocks: the begin of a
    block, which is kept, is written again. That takes a tenth less time.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._position = 0
        self._memory = memoryview(mmap(-1, size))  # what is written, where it is in the file

    @classmethod
    def open(cls, folder: Path, *, size: int = WAL_BYTES) -> Self | None:
        """Open or make the file in a folder whose lock this process holds.

        Contract: what was in it has been read, and the store has it.

        Returns:
            `None` if there is no room for it: the store can do without.
        """
        disk = os.statvfs(folder)
        size = min(size, int(disk.f_blocks * disk.f_frsize * _DISK_SHARE)) & -BLOCK_BYTES
        if size < _WAL_BYTES_MIN:
            return None
        path = folder / WAL_NAME
        try:
            if not path.exists() or path.stat().st_size != size:
                _make(path, size)
            with suppress(OSError):
                direct = cls(os.open(path, _FLAGS | os.O_DIRECT), size)
                try:
                    direct._write(0, BLOCK_BYTES)  # as not each file system can
                    return direct
                except OSError:
                    direct.close()
            return cls(os.open(path, _FLAGS), size)
        except OSError:
            return None

    def has_room(self, body_bytes: int) -> bool:
        """Whether a frame with such a body fits, before the file is begun anew."""
        return self._position + _HEADER.size + body_bytes <= self._size

    def append(self, frame: bytes) -> None:
        """Write a frame, and return when it survives a loss of power.

        Raises:
            OSError: It can't be written; nothing can be any more.
        """
        begin = self._position
        self._position = end = begin + len(frame)
        self._memory[begin:end] = frame
        self._write(begin & -BLOCK_BYTES, end + BLOCK_BYTES - 1 & -BLOCK_BYTES)

    def _write(self, begin: int, end: int) -> None:
        if os.pwrite(self._descriptor, self._memory[begin:end], begin) != end - begin:
            raise OSError("a part was written")

    def begin_anew(self) -> None:
        """Write over what is there from now on: the store has it."""
        self._position = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_wal(folder: Path, store_id: bytes, counts: Counts) -> tuple[list[Frame], int]:
    """Return what the log has that follows the last record of a store, and how many records.

    Raises:
        DamageError: It is damaged.
        OSError: It can't be read.
    """
    try:
        content = (folder / WAL_NAME).read_bytes()
    except FileNotFoundError:
        return [], 0
    frames = read_frames(content, seed_of(store_id, counts.epoch), counts.last)
    return frames, sum(len(frame.entries) for frame in frames)


def recover(folder: Path, ledger: Ledger) -> int:
    """Have a store take in what only the log has; returns how many records that were.

    Raises:
        DamageError: The log is damaged.
        NoSpaceError: There is no room for all of it.
        LostStoreError: Writing failed.
    """
    try:
        frames, records = read_wal(folder, ledger.store_id, ledger.counts)
        for frame in frames:
            ledger.commit(frame.entries)
    except (DamageError, HistoryError, OSError) as error:
        raise DamageError(
            f"{folder / WAL_NAME}: {error}. "
            "To go on without what is only there, move that file away"
        ) from error
    return records


def _make(path: Path, size: int) -> None:
    """Make the file, with all its blocks: to write over them changes nothing else on the disk."""
    new = path.with_name(NEW_WAL_NAME)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            written = 0
            while written < size:
                written += os.write(descriptor, bytes(size - written))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(new, path)
    except OSError:  # nothing of it takes room that others need
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
