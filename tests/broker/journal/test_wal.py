"""Mirror of broker/journal/wal.py; replays tests/golden/journal/wal.json."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from journal_records import Story, step, told

from pronghorn.broker.journal.errors import DamageError
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.place import WAL_NAME
from pronghorn.broker.journal.record import Record, encode_body, sequence_of
from pronghorn.broker.journal.rows import Counts
from pronghorn.broker.journal.store import Store
from pronghorn.broker.journal.wal import (
    BLOCK_BYTES,
    WAL_BYTES,
    Entry,
    WriteAheadLog,
    body_of,
    frame_of,
    read_frames,
    read_wal,
    recover,
    seed_of,
)

STORE = b"store".ljust(16)
SEED = seed_of(STORE, "e1")
FIRST = sequence_of(1, 1)
SIZE = 64 * 1024
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "journal" / "wal.json").read_text())


def entries_of(records: list[tuple[int, Record]]) -> list[Entry]:
    return [(record, ()) for _, record in records]


def frames(story: Story, *counts: int, seed: int = SEED) -> list[bytes]:
    """Cut a story into frames of so many records."""
    made, position = [], 0
    for count in counts:
        of_frame = story.records[position : position + count]
        made.append(frame_of(seed, of_frame[0][0], count, body_of(entries_of(of_frame))))
        position += count
    return made


def read(content: bytes, last: int = FIRST - 1) -> list[bytes]:
    """Return the encoded records that are read behind the last one of a store."""
    found = read_frames(content, SEED, last)
    numbers = [frame.first for frame in found]
    assert numbers == sorted(numbers)
    return [encode_body(record) for frame in found for record, _ in frame.entries]


def encoded(story: Story, start: int = 0, end: int | None = None) -> list[bytes]:
    return [encode_body(record) for _, record in story.records[start:end]]


@pytest.fixture
def story() -> Story:
    return told(Random(1), 30)


def test_golden_frame_means_what_it_meant() -> None:
    content = bytes.fromhex(GOLDEN["content"])
    seed = seed_of(bytes.fromhex(GOLDEN["store_id"]), GOLDEN["epoch"])
    found = read_frames(content, seed, GOLDEN["last"])
    assert [
        [frame.first, [[encode_body(record).hex(), *map(bytes.hex, buffers)]]]
        for frame in found
        for record, buffers in frame.entries
    ] == GOLDEN["frames"]
    again = [frame_of(seed, frame.first, 1, body_of(frame.entries)) for frame in found]
    assert b"".join(again) == content


def test_what_was_written_is_read(story: Story) -> None:
    content = b"".join(frames(story, 1, 9, 20)) + bytes(500)
    assert read(content) == encoded(story)


def test_buffers_are_read_with_their_records() -> None:
    story = Story()
    story.accept(buffers=2)
    entry = (story.records[0][1], [b"one", b""])
    (frame,) = read_frames(frame_of(SEED, FIRST, 1, body_of([entry])), SEED, FIRST - 1)
    (found,) = frame.entries
    assert found == entry


def test_what_the_store_has_is_left_out(story: Story) -> None:
    content = b"".join(frames(story, 10, 10, 10))
    assert read(content, FIRST + 9) == encoded(story, 10)
    assert read(content, FIRST + 14) == encoded(story, 15)
    assert read(content, FIRST + 29) == []


@pytest.mark.parametrize("seed", [seed_of(STORE, "e2"), seed_of(b"other".ljust(16), "e1")])
def test_frames_of_another_epoch_or_store_are_none(story: Story, seed: int) -> None:
    assert read(b"".join(frames(story, 10, 20, seed=seed))) == []


def test_a_frame_that_was_cut_off_is_none_and_those_before_it_count(story: Story) -> None:
    first, second = frames(story, 10, 20)
    for length in range(len(second)):
        assert read(first + second[:length] + bytes(len(second) - length)) == encoded(story, 0, 10)


def test_what_stays_of_the_round_before_does_not_count(story: Story) -> None:
    made = frames(story, 5, 5, 5, 5, 5, 5)
    before = b"".join(made[:4])
    for later in (made[4], made[4] + made[5]):
        assert read(later + before[len(later) :], FIRST + 19) == encoded(
            story, 20, 25 if later is made[4] else 30
        )
        aligned = later + made[1] + made[2]
        assert read(aligned, FIRST + 19)[:5] == encoded(story, 20, 25)
    cut_off = made[4][:-1] + before[len(made[4]) - 1 :]
    assert read(cut_off, FIRST + 19) == []


def test_damage_before_others_is_told_wherever_it_is(story: Story) -> None:
    content = b"".join(frames(story, 10, 10, 10))
    last = len(content) - len(frames(story, 10, 10, 10)[2])
    random = Random(2)
    for _ in range(300):
        position = random.randrange(last)
        flipped = bytearray(content)
        flipped[position] ^= 1 << random.randrange(8)
        with pytest.raises(DamageError, match="damaged or missing"):
            read(bytes(flipped))


def test_beginnings_of_frames_in_what_clients_have_sent_take_no_time(story: Story) -> None:
    """Each of them would be as long as the file: to look at all takes a quarter of a minute."""
    (frame,) = frames(story, 10)
    begun = frame_of(SEED, FIRST + 20, 1, b"")[:8] + (WAL_BYTES // 2).to_bytes(4, "little")
    begun += (FIRST + 20).to_bytes(8, "little") + (1).to_bytes(4, "little")
    content = (frame + begun * (WAL_BYTES // len(begun)))[:WAL_BYTES]
    used = time.process_time()
    assert read(content) == encoded(story, 0, 10)
    assert time.process_time() - used < 1.0


def test_a_gap_is_told(story: Story) -> None:
    first, _, third = frames(story, 10, 10, 10)
    with pytest.raises(
        DamageError, match=f"record {FIRST + 10} and maybe others .* {FIRST + 20} follows"
    ):
        read(first + third)
    with pytest.raises(DamageError, match=f"record {FIRST - 5} .* {FIRST} follows"):
        read(first, FIRST - 6)


@pytest.mark.parametrize("body", [b"\x01", b"\x04\x00\x00\x00abcd", body_of([])])
def test_frames_that_hold_something_else_are_told(body: bytes) -> None:
    with pytest.raises(DamageError):
        read(frame_of(SEED, FIRST, 1, body))


# --- the file ------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path) -> WriteAheadLog:
    opened = WriteAheadLog.open(tmp_path, size=SIZE)
    assert opened is not None
    return opened


def test_the_file_has_all_its_blocks_and_keeps_its_size(
    opened: WriteAheadLog, story: Story, tmp_path: Path
) -> None:
    path = tmp_path / WAL_NAME
    status = path.stat()
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    assert status.st_mode & 0o777 == 0o600
    for frame in frames(story, 10, 20):
        opened.append(frame)
    opened.close()
    assert path.stat().st_size == SIZE
    found, records = read_wal(tmp_path, STORE, Counts(last=FIRST - 1, epoch="e1"))
    assert records == 30
    assert [len(frame.entries) for frame in found] == [10, 20]
    assert [path.name for path in tmp_path.iterdir()] == [WAL_NAME]


@pytest.mark.parametrize("refused", [0, 1])
def test_frames_that_share_a_block_are_all_there(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """Where a file system refuses to be written to past its cache, too."""
    pwrite, left = os.pwrite, [refused]

    def picky(descriptor: int, data: memoryview, offset: int) -> int:
        assert len(data) % BLOCK_BYTES == offset % BLOCK_BYTES == 0
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EINVAL, "not directly")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    opened = WriteAheadLog.open(tmp_path, size=SIZE)
    assert opened is not None
    for frame in frames(story, *[1] * 30):
        opened.append(frame)
    opened.close()
    assert left == [0]
    found, records = read_wal(tmp_path, STORE, Counts(last=FIRST - 1, epoch="e1"))
    assert records == 30
    assert [len(frame.entries) for frame in found] == [1] * 30


def test_it_is_written_over_from_the_start(
    opened: WriteAheadLog, story: Story, tmp_path: Path
) -> None:
    first, second = frames(story, 10, 20)
    opened.append(first)
    opened.begin_anew()
    opened.append(second)
    opened.close()
    (found,), _ = read_wal(tmp_path, STORE, Counts(last=FIRST + 9, epoch="e1"))
    assert (found.first, len(found.entries)) == (FIRST + 10, 20)


def test_a_file_that_is_there_is_used_on_and_one_of_another_size_made_anew(
    opened: WriteAheadLog, tmp_path: Path
) -> None:
    opened.close()
    node = (tmp_path / WAL_NAME).stat().st_ino
    for size, is_same in ((SIZE, True), (2 * SIZE, False)):
        again = WriteAheadLog.open(tmp_path, size=size)
        assert again is not None
        again.close()
        status = (tmp_path / WAL_NAME).stat()
        assert (status.st_ino == node) is is_same
        assert status.st_size == size


def test_it_has_room_for_what_fits(opened: WriteAheadLog) -> None:
    empty = frame_of(SEED, 1, 0, b"")
    assert opened.has_room(SIZE - len(empty))
    assert not opened.has_room(SIZE - len(empty) + 1)
    opened.append(empty)
    assert not opened.has_room(SIZE - len(empty))
    opened.begin_anew()
    assert opened.has_room(SIZE - len(empty))
    opened.close()


def test_without_room_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WriteAheadLog.open(tmp_path, size=1024) is None

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", full)
    assert WriteAheadLog.open(tmp_path, size=SIZE) is None
    assert list(tmp_path.iterdir()) == [], "what was begun takes no room"


# --- recovery ------------------------------------------------------------------------------------

Begin = Callable[[], Ledger]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Make a store whose epoch e1 has begun."""

    def make() -> Ledger:
        store = Store.open_to_write(tmp_path)
        ledger = Ledger(store, program="test", store_id=STORE, now_ns=1)
        ledger.begin_epoch("e1", 1)
        return ledger

    return make


def test_a_store_takes_in_what_only_the_log_has(begin: Begin, tmp_path: Path) -> None:
    ledger, story = begin(), Story()
    random = Random(3)
    while len(story.records) < 30:
        step(story, random)
    ledger.commit(entries_of(story.records[:5]))
    content = b"".join(frames(story, 10, 10, 10))
    (tmp_path / WAL_NAME).write_bytes(content)
    assert recover(tmp_path, ledger) == 25
    assert ledger.counts.last == story.records[29][0]
    assert recover(tmp_path, ledger) == 0


def test_without_a_file_there_is_nothing_to_take_in(begin: Begin, tmp_path: Path) -> None:
    assert recover(tmp_path, begin()) == 0


def test_a_damaged_log_is_told_with_what_to_do(begin: Begin, tmp_path: Path, story: Story) -> None:
    first, _, third = frames(story, 10, 10, 10)
    (tmp_path / WAL_NAME).write_bytes(first + third)
    ledger = begin()
    with pytest.raises(DamageError, match=r"wal: record .* move that file away"):
        recover(tmp_path, ledger)
    assert ledger.counts.last == FIRST - 1


def test_records_that_do_not_follow_are_told(begin: Begin, tmp_path: Path, story: Story) -> None:
    twice = [story.records[0][1]] * 2
    body = body_of([(record, ()) for record in twice])
    (tmp_path / WAL_NAME).write_bytes(frame_of(SEED, FIRST, 2, body))
    with pytest.raises(DamageError, match="move that file away"):
        recover(tmp_path, begin())
