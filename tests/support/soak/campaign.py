"""A tree under load and faults, then the judgement: one run for each kind of fault."""

import os
import shutil
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from random import Random
from time import monotonic

import msgspec
import uvloop

from pronghorn.bench.figures import percentile
from pronghorn.client import Client, PronghornError

from .crowd import Crowd
from .faults import KINDS, Injector
from .ledger import Ledger
from .records import read_all
from .served import START_S, Served, serving, shared_memory, wait_until
from .verdict import Listeners, Verdict, judge

CALLERS = 3
FULL_MINUTES = 10.0
CONNECT_TIMEOUT_S = 15.0
_CANARY_PAUSE_S = 0.02
_LEAVE_S = 5.0  # for the descriptors of closed sockets to be gone


class Findings(msgspec.Struct, kw_only=True):
    """What one run has found.

    Attributes:
        kind: Which faults there were.
        seed: Of the run.
        seconds: From the first fault to the last.
        faults: Kind -> how many.
        verdict: What became of all calls.
        canary_p50_ms, canary_p99_ms, canary_max_ms: How long quick calls took that were made one
            by one all the time, errors left out.
        broker_mib: How much memory the broker has more than at the start; `None` where it is
            another.
        left: What was left behind, and what else went wrong.
    """

    kind: str
    seed: int
    seconds: float = 0.0
    faults: dict[str, int] = {}
    verdict: Verdict
    canary_p50_ms: float = 0.0
    canary_p99_ms: float = 0.0
    canary_max_ms: float = 0.0
    broker_mib: float | None = None
    left: list[str] = []

    @property
    def violations(self) -> list[str]:
        """All broken promises."""
        return [*self.verdict.violations, *self.left]


class Canary:
    """Makes quick calls one by one, to see how long everybody else has to wait."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary")
        self.took_s: list[float] = []

    def start(self) -> None:
        """Start it; returns once it has made a first call."""
        self._thread.start()
        wait_until(lambda: bool(self.took_s), START_S)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def percentile_ms(self, fraction: float) -> float:
        """Tell how long it took, at that percentile."""
        return percentile(sorted(self.took_s), fraction) * 1e3 if self.took_s else 0.0

    def _run(self) -> None:
        while not self._stopping.wait(_CANARY_PAUSE_S):
            call = self._ledger.open(5.0)
            begun = monotonic()
            try:
                self._ledger.tell_value(call, self._client.call("quick", call, timeout_s=5.0))
            except PronghornError as error:
                self._ledger.tell_error(call, error)
            else:
                self.took_s.append(monotonic() - begun)


def run(kind: str, *, seed: int, faults: int, seconds: float = float("inf")) -> Findings:
    """Run one kind of faults, or everything at once, so many or for so long; judge what came of it.

    What it does follows from the seed; what comes of that also from the machine.
    """
    uvloop.new_event_loop().close()  # the first keeps a pipe for as long as the process lives
    own = _own()
    findings = Findings(kind=kind, seed=seed, verdict=Verdict())
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))  # short: a socket's path is limited
    try:
        _run(findings, faults, seconds, folder)
    finally:
        shutil.rmtree(folder)
    if not wait_until(lambda: _own() == own, _LEAVE_S):
        findings.left.append(f"this process holds {_own()}, at the start {own}")
    return findings


def plan(minutes: float) -> dict[str, int]:
    """Tell how many faults of each kind there are when everything at once takes so many minutes."""
    share = min(1.0, minutes / FULL_MINUTES)
    return {name: max(1, round(kind.number * share)) for name, kind in KINDS.items()}


def _run(findings: Findings, faults: int, seconds: float, folder: Path) -> None:
    effects = folder / "effects"
    effects.touch(0o600)
    ledger = Ledger(folder / "caller-0", 0)
    with closing(ledger):
        with serving(folder, effects=effects) as served:
            with Client(served.endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
                crowd = Crowd(served.endpoint, folder, findings.seed)
                canary = Canary(client, ledger)
                try:
                    canary.start()  # which has its connection from now on
                    _trouble(findings, faults, seconds, served, crowd, client, ledger)
                except TimeoutError as error:
                    findings.left.append(str(error))
                finally:
                    canary.stop()
                    crowd.kill()
            findings.left += served.end()
        findings.left += served.complaints()
    listeners = Listeners(
        vanished_ns={one.number: one.vanished_ns for one in crowd.programs if one.vanished_ns},
        stopped={one.number for one in crowd.programs if one.was_stopped},
        broker_died="broker" in findings.faults,
    )
    findings.verdict = judge(read_all([effects, ledger.path, *crowd.ledgers]), listeners)
    findings.canary_p50_ms = canary.percentile_ms(0.5)
    findings.canary_p99_ms = canary.percentile_ms(0.99)
    findings.canary_max_ms = canary.percentile_ms(1.0)


def _trouble(
    findings: Findings,
    faults: int,
    seconds: float,
    served: Served,
    crowd: Crowd,
    client: Client,
    ledger: Ledger,
) -> None:
    """Have the crowd call while faults happen, until nothing is left of either.

    Raises:
        TimeoutError: The tree does not come back after a fault, or does not come to rest.
    """
    served.rest(client)  # with the connections that count as there from the start
    before, broker, memory = served.census(), served.tree.broker, served.broker_rss_mib()
    crowd.start(CALLERS)
    begun = monotonic()
    injector = Injector(served, crowd, client, ledger, Random(findings.seed))
    try:
        injector.run(findings.kind, faults=faults, seconds=seconds)
    finally:
        findings.seconds, findings.faults = monotonic() - begun, injector.faults
    findings.left += crowd.finish()
    served.rest(client)
    findings.left += served.differences(before)
    if served.tree.broker == broker:
        findings.broker_mib = served.broker_rss_mib() - memory


def _own() -> tuple[int, int, frozenset[str]]:
    """Count what this process holds: descriptors, threads; and list what is in /dev/shm."""
    return len(os.listdir("/proc/self/fd")), threading.active_count(), shared_memory()
