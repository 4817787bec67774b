"""The load harness itself as the subject: what it sees of a known pause, and what it costs itself.

Each measurement is one run, or a few, of ``pronghorn load``'s machinery; `calls` is its seconds.
Generators and server share the cores, but where they are kept apart.

Mirror: tests/bench/subjects/test_generators.py.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression

from pronghorn.client import Pool

from ..children import running
from ..figures import Measurement
from ..load.mix import Kind, make_kind
from ..load.orders import Protocol
from ..load.plan import Plan
from ..load.record import Record
from ..load.session import Job, Live, Watch, run
from ..processes import command_line, descendants, memory
from ..timing import Measure
from .calls import NODES

PERIOD_S, STALL_S = 2.0, 0.2
STALL_RATE, LAG_RATE, MEMORY_RATE = 1_000, 2_000, 2_000
STALL_SEEN_MS = {95.0: 100.0, 97.5: 150.0, 99.0: 180.0}
"""A tenth of the calls come in a pause and wait from 0 to 200 ms, evenly."""

RATES = (8_000, 10_000, 12_000, 14_000, 16_000, 20_000, 24_000, 28_000, 32_000)
_GENERATOR = "pronghorn.bench.load.generator"
_TRIAL_S = 2.0
_HOUR_S = 3600.0
_SAMPLE_S = 0.5  # from one look at the memory to the next
_SETTLING = 0.27  # of a measurement; 16 s of a minute, a second more than an interval

LAG_P99, VALID, SAYS_INVALID = "lag p99, us", "highest valid rate", "says invalid beyond"
GROWTH = "growth, MiB/h"


def off(percent: float) -> str:
    """Name the figure that tells how far a percentile is from what it should be."""
    return f"p{percent:g} off, %"


@contextlib.contextmanager
def stalled() -> Iterator[Measure]:
    """Look at a service that stands still for 200 ms in each 2 s."""
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        endpoint = f"ipc://{Path(folder) / 'service'}"
        arguments = (endpoint, str(PERIOD_S), str(STALL_S))
        with running("pronghorn.bench.floors.stalling", *arguments):

            def measure(calls: int) -> Measurement:
                seconds = PERIOD_S * max(1, round(calls / PERIOD_S))
                plan = Plan(rate=STALL_RATE, duration_s=seconds, warmup_s=0.5)
                record = _run(plan, (Kind("frame", 1.0, (b"hello",)),), endpoint, "req")
                latency = record.latency
                extra = {}
                for percent, computed_ms in STALL_SEEN_MS.items():
                    seen_ms = (latency.at(percent) or 0) / 1e6
                    extra[off(percent)] = abs(seen_ms / computed_ms - 1) * 100
                return _measured(record, extra)

            yield measure


@contextlib.contextmanager
def on_time() -> Iterator[Measure]:
    """Call an idle pool at 2,000/s, and see how late the calls leave."""
    with _pool() as endpoint:

        def measure(calls: int) -> Measurement:
            record = _run(Plan(rate=LAG_RATE, duration_s=calls), _add(), endpoint)
            lag_ns = record.lag.at(99) or record.lag.max_ns
            return _measured(record, {LAG_P99: lag_ns / 1000})

        yield measure


@contextlib.contextmanager
def at_its_limit() -> Iterator[Measure]:
    """Raise the rate of one generator on a core of its own until its run says that it is invalid.

    Where there are two cores the pool has the other. Each call leaves in a message of its own.
    """
    cpus = sorted(os.sched_getaffinity(0))
    with _pool(cpus[:1] if len(cpus) > 1 else ()) as endpoint:
        if len(cpus) > 1:
            os.sched_setaffinity(0, cpus[1:2])  # of the generators that this process starts

        def measure(calls: int) -> Measurement:
            best: Record | None = None
            record = _trial(RATES[0], endpoint, calls)
            for rate in RATES[1:]:
                if not record.valid:
                    break
                best, record = record, _trial(rate, endpoint, calls)
            if record.valid:
                best = record
            found = 0.0 if best is None else best.plan.rate
            return _measured(best or record, {VALID: found, SAYS_INVALID: float(not record.valid)})

        yield measure


@contextlib.contextmanager
def for_long() -> Iterator[Measure]:
    """Call at 2,000/s and see by how much the memory of the generator grows in an hour.

    It is the beginning of a run of an hour, that is then interrupted. The first quarter is left
    out: of a minute that is the first of the run's intervals, at whose end a histogram is packed
    for the first time. A line is laid through the rest.
    """
    with _pool() as endpoint:

        def measure(calls: int) -> Measurement:
            plan = Plan(rate=MEMORY_RATE, duration_s=_HOUR_S, warmup_s=0)
            samples: list[tuple[float, float]] = []  # seconds of the run, MiB

            def watch(live: Live) -> None:
                if live.elapsed_s > (samples[-1][0] if samples else 0) + _SAMPLE_S:
                    samples.append((live.elapsed_s, _memory_mib()))
                    if live.elapsed_s >= calls:
                        signal.raise_signal(signal.SIGINT)  # as Ctrl-C does

            record = _run(plan, _add(), endpoint, watch=watch)
            settled = [each for each in samples if each[0] > calls * _SETTLING]
            per_s = linear_regression(*zip(*settled, strict=True)).slope
            return _measured(record, {GROWTH: per_s * _HOUR_S})

        yield measure


@contextlib.contextmanager
def _pool(cpus: tuple[int, ...] | list[int] = ()) -> Iterator[str]:
    with Pool(NODES, workers=1, cpus=cpus) as pool:
        yield pool.endpoint


def _add() -> tuple[Kind, ...]:
    return (make_kind("add", 1.0, [{"a": 1, "b": 2}], 1),)


def _trial(rate: float, endpoint: str, seconds: float) -> Record:
    plan = Plan(rate=rate, duration_s=min(seconds, _TRIAL_S), warmup_s=0.5)
    return _run(plan, _add(), endpoint)


def _run(
    plan: Plan,
    kinds: tuple[Kind, ...],
    endpoint: str,
    protocol: Protocol = "pronghorn",
    watch: Watch | None = None,
) -> Record:
    job = Job(plan=plan, kinds=kinds, protocol=protocol, endpoint=endpoint, command="bench load")
    return run(job, watch or (lambda live: None))


def _measured(record: Record, extra: dict[str, float]) -> Measurement:
    return Measurement(
        calls=max(1, record.counts["sent"]),
        elapsed_ns=round(record.plan.duration_s * 1e9),
        extra=extra,
    )


def _memory_mib() -> float:
    """Return what the generators have for themselves; this process has the samples too."""
    ours = [pid for pid in descendants(os.getpid()) if _GENERATOR in command_line(pid)]
    return sum(memory(pid).uss_kib for pid in ours) / 1024
