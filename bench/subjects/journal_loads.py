"""Loads on the journal's writer: one record at a time, a fixed rate, many runs in flight, starts.

What a broker would do towards it is in `journal`; nothing else runs. A small run is two records:
that it was accepted, and its result.

Mirror: tests/bench/subjects/test_journal_loads.py.
"""

import contextlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter_ns

from msgspec import Raw

from pronghorn.broker.journal.ledger import Ledger
from pronghorn.broker.journal.messages import AskStatistics, Hurry, frames_of
from pronghorn.broker.journal.record import SECRET_BYTES, Accepted, Ended, Record
from pronghorn.broker.journal.store import Store
from pronghorn.broker.wire.control import JournalConfig, JournalOpened

from ..figures import Measurement
from ..timing import Measure, time_each
from .journal import Broker, Journal, journal

RATE_PER_S = 10_000
IN_FLIGHT = 1_000
TOGETHER = 100
COMMITS_PER_RUN = "commits per run"
BYTES_PER_RUN = "bytes on disk per run"
COMMITS_OF_MOST = "most commits of what came together"

_PARAMS = Raw(b"\x82\xa1a\x01\xa1b\x02")  # {"a": 1, "b": 2}
_RESULT = Raw(b"\x03")
_FOR_EVER_S = 1e10
_OPEN_SHARE = 10  # one open run for so many ended ones


def accepted(run: int) -> Accepted:
    """Make the first record of a small run."""
    return Accepted(
        run, 0, os.urandom(SECRET_BYTES), "nodes.add", "uid:1000", time.time_ns(), _PARAMS
    )


def done(run: int) -> Ended:
    """Make the last record of a small run."""
    return Ended(run, run, run, time.time_ns(), "done", 1_000, _RESULT)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[Measure]:
    """Write a record and wait until it is kept."""
    with _served() as broker:

        def once() -> bool:
            broker.write_record(accepted(broker.next_sequence))
            broker.hurry()
            broker.settle()
            return True

        yield lambda calls: time_each(once, True, calls)


@contextlib.contextmanager
def offered() -> Iterator[Measure]:
    """Offer records at a fixed rate; latency runs from the planned time to the acknowledgement."""
    with _served() as broker:
        yield lambda calls: _offer(broker, calls)


@contextlib.contextmanager
def together() -> Iterator[Measure]:
    """Have so many runs end together; latency: of an end behind which the others come at once."""
    with _served() as broker:
        yield lambda calls: _end_together(broker, calls)


@contextlib.contextmanager
def in_flight() -> Iterator[Measure]:
    """Keep so many runs in flight, each of which ends as soon as its beginning is kept."""
    with _served() as broker:
        yield lambda calls: _keep_in_flight(broker, calls)


@contextlib.contextmanager
def starts() -> Iterator[Measure]:
    """Start on a store with so many ended runs as there are calls, and a tenth of open ones."""
    yield _start


def _offer(broker: Broker, calls: int) -> Measurement:
    interval_ns = 1_000_000_000 // RATE_PER_S
    begin = perf_counter_ns()
    planned: deque[int] = deque()  # of what is outstanding, oldest first
    latencies: list[int] = []
    written = 0
    while len(latencies) < calls:
        now = perf_counter_ns()
        while written < calls and begin + written * interval_ns <= now:
            planned.append(begin + written * interval_ns)
            broker.write_record(accepted(broker.next_sequence))
            written += 1
        broker.exchange()
        _take_acknowledged(broker, planned, latencies)
    return Measurement(calls=calls, elapsed_ns=perf_counter_ns() - begin, latencies_ns=latencies)


def _take_acknowledged(broker: Broker, planned: deque[int], latencies: list[int]) -> None:
    now = perf_counter_ns()
    assert broker.backlog is not None
    while len(planned) > len(broker.backlog):
        latencies.append(now - planned.popleft())


def _end_together(broker: Broker, calls: int) -> Measurement:
    latencies, most = [], 0
    begin = perf_counter_ns()
    for _ in range(calls):
        commits = broker.commits
        for run in _begun(broker):
            broker.write_record(done(run))
        broker.hurry()
        broker.settle()
        most = max(most, broker.commits - commits)
        latencies.append(_first_of_others(broker))
    return Measurement(
        calls=calls,
        elapsed_ns=perf_counter_ns() - begin,
        latencies_ns=latencies,
        extra={COMMITS_OF_MOST: most},
    )


def _first_of_others(broker: Broker) -> int:
    """Tell how long it takes until an end is kept behind which others come at once; ns."""
    assert broker.backlog is not None
    first, *others = [[bytes(one) for one in frames_of(done(run))] for run in _begun(broker)]
    hurried = [bytes(one) for one in frames_of(Hurry())]
    behind = [*chain.from_iterable(others), *hurried]
    begin, end = perf_counter_ns(), broker.next_sequence
    broker.put([*first, *hurried])
    broker.flush()
    broker.put(behind)
    now = time.monotonic()
    for frames in (first, *others):
        broker.backlog.append(frames, now)
    broker.until(lambda: broker.acknowledged >= end)
    took_ns = perf_counter_ns() - begin
    broker.settle()
    return took_ns


def _begun(broker: Broker) -> list[int]:
    """Have runs accepted; returns their numbers, when that is kept."""
    runs = []
    for _ in range(TOGETHER):
        runs.append(broker.next_sequence)
        broker.write_record(accepted(broker.next_sequence))
    broker.settle()
    return runs


def _keep_in_flight(broker: Broker, calls: int) -> Measurement:
    commits, used = broker.commits, broker.ask(AskStatistics(1)).used_bytes
    begin = perf_counter_ns()
    begun: deque[int] = deque()  # runs whose beginning is not kept yet
    written = ended = 0
    ends: deque[int] = deque()  # numbers of the records that end them
    while ended < calls:
        while written < calls and len(begun) + len(ends) < IN_FLIGHT:
            begun.append(broker.write_record(accepted(broker.next_sequence)))
            written += 1
        broker.hurry()
        broker.exchange(1.0)
        kept = broker.acknowledged
        while begun and begun[0] <= kept:
            ends.append(broker.write_record(done(begun.popleft())))
        while ends and ends[0] <= kept:
            ends.popleft()
            ended += 1
    elapsed_ns = perf_counter_ns() - begin
    grown = broker.ask(AskStatistics(2)).used_bytes - used
    return Measurement(
        calls=calls,
        elapsed_ns=elapsed_ns,
        extra={
            COMMITS_PER_RUN: (broker.commits - commits) / calls,
            BYTES_PER_RUN: grown / calls,
        },
    )


def _start(calls: int) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as path:
        folder = Path(path)
        _fill(folder, calls, calls // _OPEN_SHARE)
        begin = perf_counter_ns()
        running = Journal(JournalConfig(folder=path, age_s=_FOR_EVER_S))
        took_ns = perf_counter_ns() - begin
        if running.opened != JournalOpened(calls // _OPEN_SHARE):
            raise AssertionError(running.opened)
        running.close()
    return Measurement(calls=1, elapsed_ns=took_ns, latencies_ns=[took_ns])


def _fill(folder: Path, ended: int, open_runs: int) -> None:
    store = Store.open_to_write(folder)
    ledger = Ledger(store, program="bench", store_id=b"", now_ns=0)
    run = ledger.begin_epoch("bench", 0) + 1
    for begin in range(0, ended, IN_FLIGHT):
        records: list[Record] = []
        for _ in range(min(IN_FLIGHT, ended - begin)):
            records += (accepted(run), done(run))
            run += 2
        ledger.commit([(record, ()) for record in records])
    if open_runs:
        ledger.commit([(accepted(run + number), ()) for number in range(open_runs)])
    store.close()


@contextlib.contextmanager
def _served() -> Iterator[Broker]:
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as path,
        journal(Path(path), age_s=_FOR_EVER_S) as running,
    ):
        broker = running.attach("bench").welcomed()
        yield broker
        broker.close()
