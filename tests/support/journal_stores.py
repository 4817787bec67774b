"""Stores made for tests of the journal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from journal_records import Story, step

from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.place import WAL_NAME
from pronghorn.broker.journal.record import Record
from pronghorn.broker.journal.store import MAP_BYTES, Store
from pronghorn.broker.journal.wal import body_of, frame_of, seed_of

NOW_NS = 1_700_000_000_000_000_000
EPOCH = "epoch-1"


@contextmanager
def ledger(path: Path, *, map_bytes: int = MAP_BYTES) -> Iterator[Ledger]:
    """Open the store in a folder, or make it."""
    path.mkdir(mode=0o700, exist_ok=True)
    store = Store.open_to_write(path, map_bytes=map_bytes)
    try:
        yield Ledger(store, program="test", store_id=b"i" * 16, now_ns=NOW_NS)
    finally:
        store.close()


def commit(books: Ledger, records: Sequence[tuple[int, Record]], batch: int = 50) -> None:
    """Keep records of a story, so many a commit."""
    for begin in range(0, len(records), batch):
        part = records[begin : begin + batch]
        assert books.commit([(record, ()) for _, record in part]) == part[-1][0]


def filled(path: Path, *, records: int = 300, seed: int = 1, logged: int = 0) -> Story:
    """Make a store with a story in it, and return the story.

    Args:
        path: The folder.
        records: How long the story is.
        seed: Of what happens in it.
        logged: So many records are only in the write-ahead log, as if the writer had been killed.
    """
    story, random = Story(), Random(seed)
    while len(story.records) < records:
        step(story, random)
    records = len(story.records)
    with ledger(path) as books:
        books.begin_epoch(EPOCH, NOW_NS)
        commit(books, story.records[: records - logged])
        if logged:
            first = story.records[records - logged][0]
            body = body_of([(record, ()) for _, record in story.records[records - logged :]])
            frame = frame_of(seed_of(books.store_id, EPOCH), first, logged, body)
            (path / WAL_NAME).write_bytes(frame)
    return story
