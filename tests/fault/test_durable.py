"""Calls that are recorded, in real trees, and what of them survives which death."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest
from tapped import write_between
from trees import PATIENCE_S, Running, is_within, journal_of, kill

from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.messages import frames_of
from pronghorn.broker.journal.reading import last_record, list_runs, params_of, value_of
from pronghorn.broker.journal.record import Started
from pronghorn.broker.journal.rows import Filter
from pronghorn.broker.journal.store import Store
from pronghorn.broker.restart import INTENSITY
from pronghorn.broker.wire.link import Buffer
from pronghorn.client import (
    BrokerLostError,
    JournalError,
    UnimplementedError,
    WorkerLostError,
)

pytestmark = pytest.mark.slow

Start = Callable[..., Running]


def sums(folder: Path) -> list[tuple[list[int], int]]:
    """Read the parameters and results of all runs of `add`, the newest first."""
    assert check_folder(folder).problems == []
    store = Store.open_to_read(folder)
    try:
        with store.view() as view:
            runs = list_runs(view, Filter(node="faulty.add"), limit=1000).runs
            return [
                (
                    msgspec.msgpack.decode(params_of(view, run).content),
                    msgspec.msgpack.decode(value_of(view, last_record(view, run)).content),
                )
                for run in runs
            ]
    finally:
        store.close()


def test_calls_are_recorded_as_they_ended(start: Start, tmp_path: Path) -> None:
    running = start(data=tmp_path / "data")
    client = running.client
    assert client.call("add", 1, 2) == 3
    assert not (tmp_path / "data").exists()  # nothing was recorded
    for durability in ("sync", "batched"):
        durable = client.within(durability=durability)
        assert durable.call("add", 3, 4) == 7
        assert durable.submit("add", 5, 6).result() == 11
    with pytest.raises(WorkerLostError):
        client.within(durability="sync").call("die", "SIGKILL")
    with pytest.raises(UnimplementedError, match="stream without durability"):
        list(client.within(durability="sync").stream("add", 1, 2))
    running.pool.close()
    assert sorted(sums(tmp_path / "data")) == [([3, 4], 7)] * 2 + [([5, 6], 11)] * 2


def test_without_a_folder_durable_calls_are_refused(start: Start) -> None:
    client = start().client
    for _ in range(2):
        with pytest.raises(JournalError, match=r"this pool has no journal.*Pool\(data=") as raised:
            client.within(durability="batched").call("add", 1, 2)
        assert raised.value.outcome == "not_started"
    assert client.call("add", 1, 2) == 3


def test_the_journal_may_die_and_nothing_is_lost(start: Start, tmp_path: Path) -> None:
    running = start(data=tmp_path / "data")
    durable = running.client.within(durability="sync")
    assert durable.call("add", 0, 0) == 0
    futures: list[Any] = []
    for number in range(1, 6):
        os.kill(journal_of(running), signal.SIGKILL)
        futures += [durable.submit("add", number, index) for index in range(20)]
        assert futures[-1].result(PATIENCE_S) == number + 19
    assert sum(future.result(PATIENCE_S) for future in futures) == 5 * 190 + 20 * 15
    running.pool.close()
    assert len(sums(tmp_path / "data")) == 101


def test_what_was_answered_survives_the_broker_and_the_tree(
    start: Start, runtime: Path, tmp_path: Path
) -> None:
    running = start(data=tmp_path / "data")
    durable = running.client.within(durability="sync")
    answered = [([number, 1], durable.call("add", number, 1)) for number in range(20)]
    kill([running.tree.broker])
    assert retried(durable) == 201  # the new broker has the journal too
    kill([*running.tree.pids, journal_of(running)])
    running.pool.close()
    for folder in runtime.iterdir():  # nobody was left to remove it
        shutil.rmtree(folder)
    assert all(one in sums(tmp_path / "data") for one in answered)
    again = start(data=tmp_path / "data")
    assert again.client.within(durability="sync").call("add", 300, 1) == 301
    again.pool.close()
    found = sums(tmp_path / "data")
    assert all(one in found for one in [*answered, ([200, 1], 201), ([300, 1], 301)])


def test_a_second_pool_on_the_folder_is_refused_until_the_first_has_ended(
    start: Start, tmp_path: Path
) -> None:
    first, second = start(data=tmp_path / "data"), start(data=tmp_path / "data")
    assert first.client.within(durability="sync").call("add", 1, 1) == 2
    holder = journal_of(first)
    durable = second.client.within(durability="sync")
    with pytest.raises(JournalError, match=f"in use by process {holder}"):
        durable.call("add", 2, 2)
    assert second.client.call("add", 2, 2) == 4
    first.pool.close()
    assert retried(durable) == 201


def retried(durable: Any) -> Any:
    """Call until there is an answer."""
    while True:
        try:
            return durable.call("add", 200, 1)
        except (BrokerLostError, JournalError):
            continue


NO_MESSAGE = (b"\xc1",)
OUT_OF_ORDER = frames_of(Started(77, 76, 1, 5))  # of a run that there is not


@pytest.mark.parametrize(
    ("frames", "to_journal", "is_counted"),
    [(NO_MESSAGE, True, True), (OUT_OF_ORDER, True, False), (NO_MESSAGE, False, False)],
)
def test_a_stream_on_which_something_wrong_comes_heals_and_nothing_is_lost(
    start: Start,
    tmp_path: Path,
    frames: tuple[Buffer, ...],
    to_journal: bool,
    is_counted: bool,
) -> None:
    running = start(data=tmp_path / "data")
    durable = running.client.within(durability="sync")
    assert durable.call("add", 0, 0) == 0
    broker, journal = running.tree.broker, journal_of(running)
    ends = (broker, journal) if to_journal else (journal, broker)
    futures: list[Any] = []
    for number in range(1, 4):
        futures += [durable.submit("add", number, index) for index in range(20)]
        assert write_between(*ends, frames)
        futures += [durable.submit("add", number, index) for index in range(20, 40)]
        begun = monotonic()
        assert running.client.call("add", 1, 2) == 3
        assert is_within(monotonic() - begun, 0.2), "what is not recorded waits for nothing"
        assert futures[-1].result(PATIENCE_S) == number + 39
    assert sum(future.result(PATIENCE_S) for future in futures) == 6 * 40 + 3 * 780
    counters = running.client.call("pronghorn.stats")["counters"]
    assert counters["records_refused"] == 0
    assert counters["journal_broken"] == (3 if is_counted else 0)
    assert (running.tree.broker, journal_of(running)) == (broker, journal)
    running.pool.close()
    assert len(sums(tmp_path / "data")) == 121


def test_a_stream_that_is_broken_again_and_again_is_not_tried_in_a_spin(
    start: Start, tmp_path: Path
) -> None:
    running = start(data=tmp_path / "data")
    durable = running.client.within(durability="sync")
    assert durable.call("add", 0, 0) == 0
    broker, end, broken = running.tree.broker, monotonic() + 2.5, 0
    while monotonic() < end:
        with suppress(ValueError):  # the journal is being started
            broken += write_between(broker, journal_of(running), NO_MESSAGE)
        sleep(0.001)
    counted = running.client.call("pronghorn.stats")["counters"]["journal_broken"]
    assert 3 <= counted <= INTENSITY + 2
    assert durable.call("add", 1, 1) == 2
    assert running.tree.broker == broker
