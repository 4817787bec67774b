"""A thing to be measured, in a process of its own, told by the driver when to run.

``python -m pronghorn.bench.subject FACTORY OPTIONS`` makes the subject, says ``ready``, and then
runs as many calls as each line on its standard input asks for, answering each with one
`Measurement` as JSON. So subjects share nothing but the machine: no import, ZeroMQ context,
event loop or forked pool of one disturbs another, and each sleeps in a read while the others are
measured.

A factory is named ``package.module:function``; it takes the options as keyword arguments and is
a context manager that yields a `Measure`. Measured CPU placement is set here, before anything
starts.

Mirror: tests/bench/test_subject.py.
"""

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, Any

import msgspec

from .children import (
    ChildError,
    die_with_parent,
    python_command,
    say_ready,
    stop,
    wait_until_ready,
)
from .figures import Measurement
from .timing import Measure

ANSWER_TIMEOUT_S = 180.0
"""Longest slice: ten times what the slowest scenario needs on the reference machine."""

_PEERS = "peers."  # what the factories of these begin with

Factory = Callable[..., AbstractContextManager[Measure]]
_decode_measurement = msgspec.json.Decoder(Measurement).decode


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure.

    Attributes:
        name: Short and unique within its group, also the label people see.
        factory: ``module:function`` below ``pronghorn.bench``.
        options: Keyword arguments of the factory.
        cpus: The cores that all of its processes are pinned to; empty: all are free.
        share: Times the plan's calls it makes, for one that is so much quicker than the others.
        python: Interpreter of the environment that it runs in; "": this one.
    """

    name: str
    factory: str
    options: dict[str, Any] = {}
    cpus: tuple[int, ...] = ()
    share: int = 1
    python: str = ""


class RunningSubject:
    """The driver's end of a subject's process."""

    def __init__(self, subject: Subject, process: subprocess.Popen[str]) -> None:
        self.subject = subject
        self._process = process

    def measure(self, calls: int) -> Measurement:
        """Let the subject make that many calls; block until it has."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{calls}\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"{self.subject.name} has ended, see above") from None
        readable, _, _ = select.select([process.stdout], [], [], ANSWER_TIMEOUT_S)
        if not readable:
            raise ChildError(f"{self.subject.name} gave no answer for {ANSWER_TIMEOUT_S:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise ChildError(f"{self.subject.name} ended with status {process.wait()}, see above")
        return _decode_measurement(line)


@contextlib.contextmanager
def started(subject: Subject) -> Iterator[RunningSubject]:
    """Run a subject's process from its ``ready`` until the block ends."""
    options = msgspec.json.encode(subject.options).decode()
    cpus = ",".join(map(str, subject.cpus))
    command = python_command("pronghorn.bench.subject", [subject.factory, options, cpus])
    process = subprocess.Popen(
        [subject.python or command[0], *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        wait_until_ready(process.stdout, subject.name)
        yield RunningSubject(subject, process)
    finally:
        _leave(process)


def _leave(process: subprocess.Popen[str]) -> None:
    """End a subject the kind way first: it closes what it has when its input ends."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5.0)
    stop(process)


def resolve(factory: str) -> Factory:
    """Import the factory that a name like ``floors.zeromq:proxied`` stands for."""
    module, _, function = factory.partition(":")
    found: Factory = getattr(importlib.import_module(f"pronghorn.bench.{module}"), function)
    return found


def serve(factory: str, options: dict[str, Any], orders: IO[str]) -> None:
    """Answer orders until their stream ends; what others print goes to standard error."""
    with (
        os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers,
        resolve(factory)(**options) as measure,
    ):
        say_ready()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for order in orders:
            answers.write(msgspec.json.encode(measure(int(order))).decode() + "\n")
            answers.flush()


def _end_by(number: int, frame: object) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run one subject: FACTORY OPTIONS CPUS."""
    factory, options, cpus = sys.argv[1:]
    if factory.startswith(_PEERS):
        # What a peer starts does not end with this process, so that has to leave in good order.
        signal.signal(signal.SIGTERM, _end_by)
        die_with_parent(signal.SIGTERM)
    else:
        die_with_parent()
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    serve(factory, msgspec.json.decode(options), sys.stdin)


if __name__ == "__main__":
    main()
