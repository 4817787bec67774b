"""What a loss of power would have left of a store, at any moment of a writer's work.

The writer works with its writes, syncs and acknowledgements written down (shim.c). A state after a
loss of power is what was synced by then, or written through, and of what was written since the last
sync any part: each unit of 4 KiB, or of a sector, is there or is not. So is each of the last write
to the log, which may have been under way. Each state is opened and looked at by a child: it has to
be whole, and once it has taken in the log, to have all that was acknowledged, exactly the first
records of those that were written, and to take more.

What it leaves out: a disk that lies about its syncs, or that writes a sector in part.
"""

import faulthandler
import os
import shutil
import struct
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import time_ns
from typing import NamedTuple

from journal_records import Story, accepted, step

from pronghorn.bench.subjects.journal import journal
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.messages import Committed, broker_end
from pronghorn.broker.journal.place import DATA_NAME, READERS_NAME, WAL_NAME
from pronghorn.broker.journal.record import encode_body, key_of, parse_record, sequence_at
from pronghorn.broker.journal.rows import Table, unsealed
from pronghorn.broker.journal.store import Store
from pronghorn.broker.journal.wal import recover

from .shim import traced

UNITS = (4096, 512)
_ENTRY = struct.Struct("<cqI")
_LOST = 0.5  # share of what was not synced that is not there


class Entry(NamedTuple):
    """One line of the trace: what was done, where, and the bytes."""

    kind: str
    offset: int
    content: bytes


class Work(NamedTuple):
    """What a writer has done."""

    entries: list[Entry]
    acknowledged: list[int]  # number of the last acknowledged record, after each entry
    written: dict[int, bytes]  # number of a record -> its body, as it was sent
    files: "Files"  # what was there at the end


class Files(NamedTuple):
    """What is in a folder."""

    data: bytes
    log: bytes


def work(folder: Path, random: Random, *, records: int) -> Work:
    """Have a writer keep a story, with retention that removes most of it again."""
    story, written = Story(), {}
    trace = folder / "trace"
    with journal(folder / "journal", traced(trace), runs=20) as running:
        broker = running.attach("e1").welcomed()
        while len(story.records) < records:
            before = len(story.records)
            for _ in range(random.choice((1, 1, 2, 10, 60))):
                step(story, random)
            for sequence, record in story.records[before:]:
                assert broker.write_record(record) == sequence
                written[sequence] = encode_body(record)
            if random.random() < 0.5:
                broker.hurry()
            broker.exchange()
            if random.random() < 0.7:
                broker.settle()
        broker.settle()
        broker.close()
    entries = parse(trace.read_bytes())
    data, log = ((folder / "journal" / name).read_bytes() for name in (DATA_NAME, WAL_NAME))
    return Work(entries, _acknowledged(entries), written, Files(data, log))


def parse(trace: bytes) -> list[Entry]:
    """Read a trace."""
    entries, position = [], 0
    while position < len(trace):
        kind, offset, length = _ENTRY.unpack_from(trace, position)
        position += _ENTRY.size
        entries.append(Entry(kind.decode(), offset, trace[position : position + length]))
        position += length
    return entries


def first_moment(done: Work) -> int:
    """Return from which entry on there can be a state: the store is made and has its name."""
    return next(index for index, entry in enumerate(done.entries) if entry.kind == "A")


def replay(
    done: Work, until: int, random: Random | None, unit: int, *, unsynced: bool = False
) -> Files:
    """Build the files as they may be after a loss of power before an entry.

    Without `random` nothing is lost. With `unsynced` the last syncs did nothing, as with a disk
    that lies, or with LMDB's unsafe flags.
    """
    entries = done.entries[:until]
    syncs = [index for index, entry in enumerate(entries) if entry.kind == "S"]
    synced = syncs[-10 if unsynced and len(syncs) > 10 else -1]
    data, log = bytearray(), bytearray(len(done.files.log))
    for index, (kind, offset, content) in enumerate(entries):
        if kind not in "WDL":
            continue
        file = log if kind == "L" else data
        is_written_through = kind == "D" or (kind == "L" and index < len(entries) - 1)
        if random is None or index < synced or (is_written_through and not unsynced):
            _put(file, offset, content)
            continue
        for begin in range(0, len(content), unit):
            if random.random() >= _LOST:
                _put(file, offset + begin, content[begin : begin + unit])
    return Files(bytes(data), bytes(log))


def survives(files: Files, acknowledged: int, done: Work, folder: Path) -> str:
    """Look at one state in a child; returns what is wrong with it, "" if nothing is."""
    (folder / DATA_NAME).write_bytes(files.data)
    (folder / WAL_NAME).write_bytes(files.log)
    (folder / READERS_NAME).unlink(missing_ok=True)
    return in_child(lambda: _look(folder, acknowledged, done.written))


def in_child(look: Callable[[], None]) -> str:
    """Do something that may end the process; returns what went wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # that it ends is what is looked for
        try:
            look()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:
        wrong = told.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return wrong or (f"it ended with {status}" if status else "")


def campaign(states: int, seed: int, *, records: int = 600, unsynced: bool = False) -> list[str]:
    """Look at so many states of a writer's work; returns what is wrong with which."""
    random = Random(seed)
    wrong = []
    with tempfile.TemporaryDirectory() as path:
        done = work(Path(path), random, records=records)
    assert replay(done, len(done.entries), None, 1) == done.files, "the trace is not complete"
    assert done.acknowledged[-1] == max(done.written)
    assert {entry.kind for entry in done.entries} == set("WDSLA")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        for number in range(states):
            until = random.randrange(first_moment(done) + 1, len(done.entries) + 1)
            unit = UNITS[number % len(UNITS)]
            files = replay(done, until, random, unit, unsynced=unsynced)
            found = survives(files, done.acknowledged[until - 1], done, folder)
            if found:
                wrong.append(f"state {number}, entry {until}, units of {unit}: {found}")
    finally:
        shutil.rmtree(folder)
    return wrong


def _look(folder: Path, acknowledged: int, written: dict[int, bytes]) -> None:
    report = check_folder(folder, at_rest=True)
    assert not report.problem_count, report.problems
    store = Store.open_to_write(folder)
    ledger = Ledger(store, program="test", store_id=b"", now_ns=time_ns())
    recover(folder, ledger)
    last = ledger.counts.last
    assert last >= acknowledged, f"{acknowledged} was acknowledged, {last} is the last"
    with store.view() as view:
        for key, sealed in view.walk(Table.LOG):
            sequence = sequence_at(key)
            record = parse_record(Table.LOG.place(key), unsealed(Table.LOG, key, sealed))
            assert sequence <= last
            given = written[sequence]
            assert encode_body(record) == given or getattr(record, "apart", ())
        kept = view.count(Table.LOG)
    assert kept + ledger.pruned.records == sum(number <= last for number in written)
    ledger.begin_epoch("after", time_ns())
    run = ledger.counts.last + 1
    assert ledger.commit([(accepted(run), ())]) == run
    with store.view() as view:
        assert view.get(Table.LOG, key_of(run)) is not None
    store.close()
    report = check_folder(folder, at_rest=True)
    assert not report.problem_count, report.problems


def _acknowledged(entries: list[Entry]) -> list[int]:
    """Say for each entry which records were acknowledged by then."""
    last, found = 0, []
    for entry in entries:
        if entry.kind == "A":
            last = max(last, _through(entry.content))
        found.append(last)
    return found


def _through(sent: bytes) -> int:
    try:
        messages = broker_end().feed(sent)
    except ValueError:  # it went to the supervisor
        return 0
    return max((each.through for each, _ in messages if isinstance(each, Committed)), default=0)


def _put(file: bytearray, offset: int, content: bytes) -> None:
    if len(file) < offset + len(content):
        file.extend(bytes(offset + len(content) - len(file)))
    file[offset : offset + len(content)] = content
