"""One run: checks what is to be called, starts the generators, and makes the record. An IO shell.

Mirror: tests/bench/load/test_session.py.
"""

import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, monotonic_ns
from types import FrameType
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    NotFoundError,
    PronghornError,
    error_from_wire,
)
from pronghorn.broker.wire.statistics import Statistics
from pronghorn.client.flows import output_of, read_report
from pronghorn.client.sync import Client

from ..children import python_command, stop
from ..environment import collect
from .histogram import Histogram, Recorder
from .lanes import CONNECT_TIMEOUT_S, probe
from .mix import Kind
from .orders import (
    Begin,
    Done,
    Failed,
    FromGenerator,
    Inlet,
    Order,
    Progress,
    Protocol,
    Ready,
    send,
)
from .plan import Plan
from .record import (
    INTERRUPTED,
    BrokerNode,
    GeneratorRecord,
    Record,
    broker_view,
    make_record,
)
from .tally import Totals, unpacked

CHECKED_MAX: Final = 100
"""Parameter sets of a node that are tried before a run, spread over all there are."""

_SETTLE_NS: Final = 200_000_000  # from the last word of the session to the first call
_READ_BYTES: Final = 1 << 16
_START_S: Final = 30.0
_END_S: Final = 10.0  # beyond what a generator may take by itself
_WINDOW: Final = 8  # reports of each generator that the live percentiles are of, 2 s


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run where."""

    plan: Plan
    kinds: tuple[Kind, ...]
    protocol: Protocol
    endpoint: str
    command: str
    trace: str | None = None  # path of the one that is replayed
    instead: dict[str, tuple[bytes, ...]] | None = None  # what its calls send


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """How a run goes: totals with the warm-up, and latencies of the last two seconds."""

    elapsed_s: float
    sent: int
    answered: int
    errors: int
    p99_ns: int


Watch = Callable[[Live], None]


def check(job: Job) -> list[str]:
    """Make sure that what is to be called can be: a call of each parameter set, as far as they go.

    Returns:
        What went wrong in other ways: a node may fail now and then, that's for the run to count.

    Raises:
        InvalidArgumentError: A node refuses a parameter set.
        NotFoundError: There is no such node.
        BrokerLostError: Nobody answers.
        JournalError: Calls are to be recorded and can't be.
    """
    if job.protocol != "pronghorn":
        for kind in job.kinds:
            probe(job.endpoint, kind.bodies[0], envelope=job.protocol == "req")
        return []
    warnings: list[str] = []
    plan = job.plan
    with Client(job.endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        caller = client.within(plan.timeout_s, durability=plan.durability)
        for kind in job.kinds:
            for number in range(0, len(kind.bodies), -(-len(kind.bodies) // CHECKED_MAX) or 1):
                try:
                    _call(caller, kind, kind.bodies[number])
                except (
                    InvalidArgumentError,
                    NotFoundError,
                    BrokerLostError,
                    JournalError,
                ) as error:
                    error.add_note(f"{kind.node}, parameter set {number + 1}")
                    raise
                except PronghornError as error:
                    warnings.append(
                        f"{kind.node}, parameter set {number + 1}, fails: {error.message}"
                    )
                    break
    return warnings


def run(job: Job, watch: Watch) -> Record:
    """Carry out a plan; Ctrl-C ends it before its time, and what was counted is reported.

    For a program's main thread, as it handles that signal.

    Args:
        job: What to run.
        watch: Called several times a second.

    Raises:
        PronghornError: A connection could not be made.
    """
    with _generators(job) as processes:
        run_ = _Run(job, processes, watch)
        run_.begin()
        # Not by an exception, which could come between reading and taking in what was read.
        before = signal.signal(signal.SIGINT, run_.on_interrupt)
        try:
            run_.follow()
        finally:
            signal.signal(signal.SIGINT, before)
        return run_.record()


class _Run:
    """A run that is on."""

    def __init__(self, job: Job, processes: Sequence["subprocess.Popen[bytes]"], watch: Watch):
        self._job = job
        self._watch = watch
        self._processes = processes
        self._selector = selectors.DefaultSelector()
        self._inlets = [Inlet() for _ in processes]
        self._ready = 0
        # by generator: the newest totals, and the latencies of the newest reports, which together
        # are in the window: to add them up for each look at it would take memory by their spread
        self._progress: list[Progress | None] = [None] * len(processes)
        self._recent: list[list[Histogram]] = [[] for _ in processes]
        self._window = Recorder()
        self._p99_ns = 0  # of the window
        self._done: list[Done | None] = [None] * len(processes)
        self._open = len(processes)  # pipes that have not ended
        self._begin_ns = 0
        self._stopped = False
        self._before: Statistics | None = None  # of the broker, when the warm-up ended
        self._environment: dict[str, Any] = msgspec.to_builtins(collect(command=job.command))

    def begin(self) -> None:
        """Hand out the orders, wait for all connections, and set the time."""
        for index, process in enumerate(self._processes):
            assert process.stdin is not None
            assert process.stdout is not None
            job = self._job
            send(
                process.stdin.fileno(),
                Order(
                    job.plan,
                    job.kinds,
                    job.protocol,
                    job.endpoint,
                    index,
                    job.trace,
                    job.instead,
                ),
            )
            self._selector.register(process.stdout, selectors.EVENT_READ, index)
        until = monotonic() + _START_S
        while self._ready < len(self._processes):
            if self._open < len(self._processes) or monotonic() > until:
                raise PronghornError("a generator process ended, or hangs, before it was ready")
            self._turn(0.1)
        self._begin_ns = monotonic_ns() + _SETTLE_NS
        for process in self._processes:
            assert process.stdin is not None
            send(process.stdin.fileno(), Begin(self._begin_ns))

    def follow(self) -> None:
        """Take in what the generators tell until all have ended."""
        plan = self._job.plan
        until_s = plan.planned_s + plan.timeout_s + _END_S
        warm_at_s = plan.warmup_s
        while self._open:
            self._turn(0.1)
            elapsed_s = (monotonic_ns() - self._begin_ns) / 1e9
            if self._before is None and elapsed_s >= warm_at_s:
                warm_at_s = until_s  # once is enough, whether it answers or not
                self._before = self._statistics()
            self._watch(self._live(elapsed_s))
            if elapsed_s > until_s:
                return

    def record(self) -> Record:
        """Put together what all have counted."""
        plan, kinds = self._job.plan, self._job.kinds
        done = [each for each in self._done if each is not None]
        troubles = []
        if len(done) < len(self._processes):
            lost = len(self._processes) - len(done)
            troubles.append(f"{lost} of {len(self._processes)} generator processes did not report")
        ran_s = min((each.ran_s for each in done), default=0.0)
        if any(each.stopped for each in done):
            troubles.append(f"{INTERRUPTED}, after {ran_s:.1f} s")
        return make_record(
            plan,
            kinds,
            Totals(plan, len(kinds), [each.tally for each in done]),
            target=f"{self._job.protocol} {self._job.endpoint}",
            generators=[GeneratorRecord(each.pid, each.cpu, each.memory_bytes) for each in done],
            broker=self._broker(),
            environment=self._environment,
            ran_s=ran_s,
            troubles=troubles,
        )

    def _turn(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            index: int = key.data
            read = os.read(key.fd, _READ_BYTES)
            if not read:
                self._selector.unregister(key.fileobj)
                self._open -= 1
            for message in self._inlets[index].feed(read):
                self._take_in(index, message)

    def _take_in(self, index: int, message: FromGenerator) -> None:
        if isinstance(message, Ready):
            self._ready += 1
        elif isinstance(message, Failed):
            raise error_from_wire(
                message.code, message.message, ErrorDetails(outcome="not_started")
            )
        elif isinstance(message, Progress):
            self._progress[index] = message
            recent = self._recent[index]
            recent.append(unpacked(message.latency))
            self._window.add(recent[-1])
            if len(recent) > _WINDOW:
                self._window.remove(recent.pop(0))
            self._p99_ns = self._window.percentile(99)
        else:
            self._done[index] = message

    def _live(self, elapsed_s: float) -> Live:
        told = [each for each in self._progress if each is not None]
        return Live(
            elapsed_s=max(0.0, elapsed_s),
            sent=sum(each.sent for each in told),
            answered=sum(each.answered for each in told),
            errors=sum(each.errors for each in told),
            p99_ns=self._p99_ns,
        )

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Have the generators stop now; the second time, give up.

        Raises:
            KeyboardInterrupt: It is the second time.
        """
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()

    def _statistics(self) -> Statistics | None:
        """Ask the broker; it may be gone, or be no broker."""
        if self._job.protocol != "pronghorn":
            return None
        with (
            suppress(PronghornError),
            Client(self._job.endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client,
        ):
            return client.within(CONNECT_TIMEOUT_S).stats()
        return None

    def _broker(self) -> list[BrokerNode]:
        after = None if self._before is None else self._statistics()
        if self._before is None or after is None:
            return []
        return broker_view(self._before, after, {kind.called for kind in self._job.kinds})


def _call(client: Client, kind: Kind, body: bytes) -> None:
    params = msgspec.msgpack.decode(body)
    if not isinstance(params, dict):
        client.call(kind.called, *(params or ()))
        return
    result = client.call(kind.called, params=params)
    if kind.workflow:
        output_of(read_report(result), kind.node)  # raises if the run has failed


@contextmanager
def _generators(job: Job) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Have generator processes as long as the block lasts."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(job.plan.processes):
            processes.append(
                subprocess.Popen(
                    python_command("pronghorn.bench.load.generator", ()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
        yield processes
    finally:
        for process in processes:
            stop(process)
