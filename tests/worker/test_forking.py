"""Mirror of worker/forking.py."""

import threading
from pathlib import Path

import lmdb
import pytest
import zmq

from pronghorn.worker import forking
from pronghorn.worker.forking import ForkHazards, fork_hazards


def test_nothing_new() -> None:
    assert fork_hazards().since(fork_hazards()) == ()


def test_threads_are_found() -> None:
    before = fork_hazards()
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    (reason,) = fork_hazards().since(before)
    stop.set()
    for thread in threads:
        thread.join()
    assert reason.startswith("has started 2 threads (")


def test_zmq_sockets_are_found_and_a_bare_context_is_fine() -> None:
    before = fork_hazards()
    with zmq.Context() as context:
        assert fork_hazards().since(before) == ()
        with context.socket(zmq.PUSH):
            # Which reason it is depends on whether libzmq's threads have named themselves yet.
            assert fork_hazards().since(before) != ()


def test_open_lmdb_files_are_found(tmp_path: Path) -> None:
    before = fork_hazards()
    with lmdb.open(str(tmp_path)):
        reasons = fork_hazards().since(before)
    assert reasons == (
        f"has opened the LMDB file {tmp_path}/data.mdb",
        f"has opened the LMDB file {tmp_path}/lock.mdb",
    )
    assert fork_hazards().since(before) == ()


def test_reasons() -> None:
    before = ForkHazards(threads={1: "old"}, lmdb_files=frozenset({"/a/data.mdb"}))
    after = ForkHazards(
        threads={1: "old", 2: "pool", 3: "ZMQbg/IO/0"}, lmdb_files=frozenset({"/b/data.mdb"})
    )
    assert after.since(before) == (
        "has started 1 thread (pool)",
        "has opened ZeroMQ sockets",
        "has opened the LMDB file /b/data.mdb",
    )


def test_without_proc_there_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(forking, "_TASKS", tmp_path / "none")
    assert fork_hazards() == ForkHazards(threads={}, lmdb_files=frozenset())
