"""What a caller notices when something goes wrong: times from the fault to the answer.

Every fault is made by the subject itself, at a random moment of the call where that matters, and
every call is checked to end as it should. Pools of two workers, all cores free.

Mirror: tests/bench/subjects/test_faults.py.
"""

import contextlib
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import perf_counter, perf_counter_ns
from typing import IO

import msgspec

from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.places import POOL_PREFIX, endpoint_in, runtime_folder
from pronghorn.client import (
    BrokerLostError,
    Client,
    DeadlineExceededError,
    PronghornError,
    WorkerLostError,
)
from pronghorn.client.launch import ProcessTree

from ..children import running
from ..figures import Measurement, latency
from ..timing import Measure, check, time_each
from ..tree import Tree
from .calls import NODES

WORKERS = 2
DEADLINE_S = 0.05
SLOW_MS = 10.0
INTERVAL_S = 0.001
CROWD = 10_000
CROWD_GRANT = 16_384  # so that all of them wait in the broker

WHOLE_P50, WHOLE_P99 = "whole again p50, ms", "whole again p99, ms"
LOST, SLOW_PERCENT, QUEUED = "results lost", "calls over 10 ms, %", "queued before or after"

_KILL_WITHIN_S = 0.04  # a client looks for a reply in two ways, one after the other: both are met
_TRY_S = 5.0
_LOOK_S = 0.01
_CROWD_COMES_S = 1.0  # ten thousand calls are sent in less


@contextlib.contextmanager
def worker_killed() -> Iterator[Measure]:
    """Kill the worker that runs a call: until its caller knows, and until another serves.

    The other worker sits in a call all the time, so a quick call made right after the kill is
    answered by the new one, or by nobody.
    """
    with _client_of_a_pool() as client, _fifo() as (path, fifo):
        random = Random(0)
        client.submit("stay", path)
        fifo.readline()

        def caught() -> int:
            try:
                client.call("stay", path)
            except WorkerLostError as error:
                told_ns = perf_counter_ns()
                check(error.outcome, "maybe_executed")
                return told_ns
            raise AssertionError("the worker was killed and its call has a result")

        def trial(caller: ThreadPoolExecutor) -> tuple[int, int]:
            waiting = caller.submit(caught)
            worker = int(fifo.readline())
            time.sleep(random.uniform(0.0, _KILL_WITHIN_S))
            killed_ns = perf_counter_ns()
            os.kill(worker, signal.SIGKILL)
            check(client.call("add", a=1, b=2), 3)
            whole_ns = perf_counter_ns()
            return waiting.result() - killed_ns, whole_ns - killed_ns

        def measure(calls: int) -> Measurement:
            with ThreadPoolExecutor(1) as caller:
                trials = [trial(caller) for _ in range(calls)]
            whole = latency([whole_ns for _, whole_ns in trials])
            return _measured(
                [told_ns for told_ns, _ in trials],
                {WHOLE_P50: whole.p50 / 1000, WHOLE_P99: whole.p99 / 1000},
            )

        yield measure


@contextlib.contextmanager
def finished_then_killed() -> Iterator[Measure]:
    """Kill a worker right after it has written a result; count the results that do not arrive."""
    with _client_of_a_pool() as client:

        def trial(value: int) -> tuple[int, bool]:
            begun = perf_counter_ns()
            try:
                check(client.call("finish_and_die", value=value), value)
            except WorkerLostError:
                return perf_counter_ns() - begun, True
            return perf_counter_ns() - begun, False

        def measure(calls: int) -> Measurement:
            before = _workers_lost(client)
            trials = [trial(value) for value in range(calls)]
            client.call("add", a=1, b=2)
            killed = _workers_lost(client) - before
            if killed < calls - WORKERS:  # the death of the last may not be known yet
                raise AssertionError(f"{killed} workers were killed in {calls} trials")
            lost = sum(lost for _, lost in trials)
            return _measured([took_ns for took_ns, _ in trials], {LOST: lost})

        yield measure


@contextlib.contextmanager
def planned_calls(*, beside_blocked: bool = False) -> Iterator[Measure]:
    """Make quick calls at planned times, each `INTERVAL_S`; latency runs from the planned time.

    So a call that waits for long delays those behind it too, as if there were somebody to make each
    of them in time.

    Args:
        beside_blocked: The other worker sits in blocking calls of a second, one after the other.
    """
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client_of_a_pool())
        if beside_blocked:
            stack.enter_context(_kept_blocked(client.endpoint))

        def measure(calls: int) -> Measurement:
            latencies_ns = []
            begin = perf_counter_ns()
            for index in range(calls):
                planned_ns = begin + round(index * INTERVAL_S * 1e9)
                time.sleep(max(0.0, (planned_ns - perf_counter_ns()) / 1e9))
                check(client.call("add", a=1, b=2), 3)
                latencies_ns.append(perf_counter_ns() - planned_ns)
            slow = sum(one > SLOW_MS * 1e6 for one in latencies_ns)
            return _measured(latencies_ns, {SLOW_PERCENT: 100 * slow / calls})

        yield measure


@contextlib.contextmanager
def calls_in_crowd(crowd_calls: str = "") -> Iterator[Measure]:
    """Make quick calls one after the other, alone or beside a client that always has more.

    Args:
        crowd_calls: Node of which that client, in a process of its own, keeps `CROWD` calls queued;
            nobody is there if it is empty. The crowd makes no pause in which it is quick to be
            served, so that a closed loop is fair. Calls that are no work are served as quickly as
            they are read: then few wait in the broker, and most on their way to it.
    """
    with _client_of_a_pool() as client:

        def measure(calls: int) -> Measurement:
            return time_each(lambda: client.call("add", a=1, b=2), 3, calls)

        def measure_in_crowd(calls: int) -> Measurement:
            # There only meanwhile: the others of the group are measured on quiet cores.
            arguments = (client.endpoint, crowd_calls, str(CROWD))
            with running("pronghorn.bench.subjects.crowd", *arguments):
                queued = _queued_in_time(client)  # all were served once and come again
                measured = measure(calls)
                queued = min(queued, _queued(client))
            while _queued(client):  # what one that is gone has open is cancelled
                time.sleep(_LOOK_S)
            return msgspec.structs.replace(measured, extra={QUEUED: queued})

        yield measure_in_crowd if crowd_calls else measure


@contextlib.contextmanager
def deadline_of_a_spin() -> Iterator[Measure]:
    """Call a node that never yields with a deadline: until the caller is told.

    Between two calls the worker is killed, and the next one is made when another is there.
    """
    with _client_of_a_pool(workers=1) as client:

        def trial() -> int:
            check(client.call("add", a=1, b=2), 3)
            begun = perf_counter_ns()
            try:
                client.call("spin", timeout_s=DEADLINE_S)
            except DeadlineExceededError as error:
                took = perf_counter_ns() - begun
                check(error.outcome, "maybe_executed")
                return took
            raise AssertionError("a node that never ends has a result")

        yield lambda calls: _measured([trial() for _ in range(calls)], {})


@contextlib.contextmanager
def broker_killed() -> Iterator[Measure]:
    """Kill the broker of a fresh pool: until a call is answered by the next one.

    The client had a connection, and goes on as a program would that tries again at once.
    """

    def trial() -> int:
        with _client_of_a_pool() as client:
            check(client.call("add", a=1, b=2), 3)
            (broker,) = Tree.of_this_process().pids["broker"]
            begun = perf_counter_ns()
            os.kill(broker, signal.SIGKILL)
            while True:
                try:
                    check(client.call("add", a=1, b=2, timeout_s=_TRY_S), 3)
                    return perf_counter_ns() - begun
                except BrokerLostError:
                    continue

    yield lambda calls: _measured([trial() for _ in range(calls)], {})


@contextlib.contextmanager
def _client_of_a_pool(workers: int = WORKERS) -> Iterator[Client]:
    """Start a pool that does not report each of the deaths that are meant, and connect to it."""
    folder = runtime_folder(f"{POOL_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
    limits = Limits(grant_requests=CROWD_GRANT)
    tree = ProcessTree([NODES], workers=workers, folder=folder, limits=limits, log_level="CRITICAL")
    try:
        with Client(endpoint_in(folder)) as client:
            yield client
    finally:
        tree.close()


@contextlib.contextmanager
def _kept_blocked(endpoint: str) -> Iterator[None]:
    """Keep one worker in blocking calls, each made when the one before has ended."""
    stopping = threading.Event()

    def block() -> None:
        with contextlib.suppress(PronghornError), Client(endpoint) as client:
            while not stopping.is_set():
                client.call("block_1s")

    thread = threading.Thread(target=block)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextlib.contextmanager
def _fifo() -> Iterator[tuple[str, IO[str]]]:
    """Give a named pipe: its path, and the end that is read."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        path = Path(folder) / "told"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDWR)  # so that neither end blocks in open
        with os.fdopen(reader, "r") as fifo:
            yield str(path), fifo


def _workers_lost(client: Client) -> int:
    lost = client.call("pronghorn.stats")["counters"]["workers_lost"]
    assert isinstance(lost, int)
    return lost


def _queued_in_time(client: Client) -> int:
    """Wait until half of a crowd is queued in the broker, but not longer than that can take."""
    end = perf_counter() + _CROWD_COMES_S
    while (queued := _queued(client)) < CROWD // 2 and perf_counter() < end:
        time.sleep(_LOOK_S)
    return queued


def _queued(client: Client) -> int:
    queued = client.call("pronghorn.stats")["queued"]
    assert isinstance(queued, int)
    return queued


def _measured(latencies_ns: list[int], extra: dict[str, float]) -> Measurement:
    return Measurement(
        calls=len(latencies_ns),
        elapsed_ns=sum(latencies_ns),
        latencies_ns=latencies_ns,
        extra=extra,
    )
