"""Stores made for tests of the journal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from journal_records import Story, step

from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.record import Record
from pronghorn.broker.journal.store import MAP_BYTES, Store

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


def filled(path: Path, *, records: int = 300, seed: int = 1) -> Story:
    """Make a store with a story in it, and return the story."""
    story, random = Story(), Random(seed)
    while len(story.records) < records:
        step(story, random)
    with ledger(path) as books:
        books.begin_epoch(EPOCH, NOW_NS)
        commit(books, story.records)
    return story
