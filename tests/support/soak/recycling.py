"""Workers that are replaced again and again under load: nothing may fail and nothing be left.

What is looked at: the calls, the processes of the tree, and descriptors and memory of those that
live on while workers come and go.
"""

import os
import select
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter_ns

import msgspec
from trees import Tree, children, is_alive, unreaped

from pronghorn.client import Client, Pool

WORKER_SECONDS = 1_000.0
WORKERS = 2
REQUESTS = 500
CALLERS = 2
ORDERS_S = 5.0  # from one order of an administrator to the next
GROWTH_BYTES_MAX = 8 * 2**20  # of a process that lives on

NODES = "from pronghorn.worker import node\n@node\ndef add(a: int, b: int) -> int: return a + b\n"


class Report(msgspec.Struct):
    """What came of it."""

    worker_seconds: float
    calls: int
    p99_us: float
    workers: int  # that there were, one after the other
    generations: int
    violations: list[str]


class _Caller(threading.Thread):
    """Calls, one after the other, until it is told to end."""

    def __init__(self, endpoint: str, ending: threading.Event) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._ending = ending
        self.errors: list[str] = []
        self.latencies_ns: list[int] = []

    def run(self) -> None:
        with Client(self._endpoint) as client:
            while not self._ending.is_set():
                begun = perf_counter_ns()
                try:
                    assert client.call("add", 1, 2, timeout_s=20.0) == 3
                except Exception as error:
                    self.errors.append(repr(error))
                self.latencies_ns.append(perf_counter_ns() - begun)


def run(worker_seconds: float = WORKER_SECONDS, *, orders_s: float = ORDERS_S) -> Report:
    """Load a pool whose workers are recycled, and order reloads and more workers meanwhile."""
    with own_folder() as folder:
        module = folder / "shop.py"
        module.write_text(NODES)
        with Pool(module, workers=WORKERS, recycle_requests=REQUESTS) as pool:
            return _run(pool, module, worker_seconds, orders_s)


def soak(worker_seconds: float, *, as_json: bool) -> int:
    """Run it and print what came of it; 1 when a promise was broken."""
    report = run(worker_seconds)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        print(
            f"{report.worker_seconds:,.0f} worker seconds, {report.calls:,} calls, "
            f"p99 {report.p99_us:,.0f} us, {report.workers:,} workers, "
            f"{report.generations} generations"
        )
    for violation in report.violations:
        print(violation, file=sys.stderr)
    return 1 if report.violations else 0


def _run(pool: Pool, module: Path, worker_seconds: float, orders_s: float) -> Report:
    supervisor = pool._tree.supervisor_pid
    admin = pool.client().admin
    ending = threading.Event()
    callers = [_Caller(pool.endpoint, ending) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    admin.recycle()  # what is taken once has been taken then
    before = _state(supervisor)
    until = monotonic() + worker_seconds / WORKERS
    orders = 0
    while monotonic() < until:
        if ending.wait(min(orders_s, max(0.0, until - monotonic()))):
            break
        orders += 1
        module.write_text(NODES + f"@node\ndef added_{orders}() -> None: ...\n")
        admin.reload()
        admin.scale(WORKERS + 1)
        admin.scale(WORKERS)
    ending.set()
    for caller in callers:
        caller.join()
    admin.recycle()  # those told to end before these have ended
    workers = admin.workers()
    for worker in workers:
        if worker.state != "ready":
            _wait_for(worker.pid)
    left = unreaped(supervisor)
    after = _state(supervisor)
    violations = [error for caller in callers for error in caller.errors]
    violations += _leaked(before, after)
    if left:
        violations.append(f"processes were not reaped: {left}")
    count = len(Tree.below(supervisor).workers)
    if count != WORKERS or len(children(supervisor)) != WORKERS + 2:
        violations.append(f"{count} workers, {len(children(supervisor))} processes are left")
    latencies = sorted(ns for caller in callers for ns in caller.latencies_ns)
    ids = [worker.id for worker in workers]
    return Report(
        worker_seconds=worker_seconds,
        calls=len(latencies),
        p99_us=latencies[len(latencies) * 99 // 100] / 1000,
        workers=max(ids),
        generations=max(worker.generation for worker in workers) + 1,
        violations=violations,
    )


def _state(supervisor: int) -> dict[str, tuple[int, int]]:
    """Return descriptors and resident bytes of what lives on: supervisor and broker."""
    tree = Tree.below(supervisor)
    return {
        name: (len(os.listdir(f"/proc/{pid}/fd")), _resident_bytes(pid))
        for name, pid in (("supervisor", tree.supervisor), ("broker", tree.broker))
    }


def _leaked(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    """Say what the processes have more than before, beyond what a moment makes of difference."""
    found = []
    for name, (files, size) in before.items():
        more = after[name][0] - files
        if more > 4 * WORKERS:
            found.append(f"the {name} has {more} descriptors more")
        growth = after[name][1] - size
        if growth > GROWTH_BYTES_MAX:
            found.append(f"the {name} has grown by {growth:,} bytes")
    return found


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _wait_for(pid: int) -> None:
    """Wait until a worker that was told to end has ended."""
    if not is_alive(pid):
        return
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(20_000)
    os.close(pidfd)


@contextmanager
def own_folder() -> Iterator[Path]:
    """Have runtime folders, and the module, in a folder of our own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
        shutil.rmtree(folder)
