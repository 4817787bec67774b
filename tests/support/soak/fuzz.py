"""Decoders that are given inputs by a fuzzer, guided by coverage: `soak.decoders` are which."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import msgspec
from rich.table import Table

from .findings import Fuzzed
from .report import print_results
from .served import environment

MINUTES = 10.0


def is_there() -> bool:
    """Whether the fuzzer is installed: there is none for all kinds of machines."""
    return find_spec("atheris") is not None


def run(
    seed: int, *, seconds: float = 0.0, runs: int = -1, only: Sequence[str] = ()
) -> Iterator[Fuzzed]:
    """Fuzz each decoder, for its share of so many seconds and with at most so many mutations.

    With their number alone the same seed gives the same inputs.
    """
    command = [sys.executable, "-m", "soak.fuzzed", f"--seed={seed}", f"--seconds={seconds}"]
    command += [f"--runs={runs}", *(f"--only={name}" for name in only)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONHASHSEED": "0"}),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                yield msgspec.json.decode(line, type=Fuzzed)
            told = process.stderr.read()
        finally:
            process.terminate()
    if process.returncode:
        raise RuntimeError(f"the fuzzer has ended with {process.returncode}: {told[-2000:]}")


def soak(minutes: float, seed: int, only: Sequence[str], *, as_json: bool) -> int:
    """Fuzz all decoders, or some; returns an exit status."""
    if not is_there():
        print("atheris is not installed: it has no wheel for this machine.", file=sys.stderr)
        return 2
    print(f"{minutes:g} minutes, seed {seed}", file=sys.stderr, flush=True)
    results = []
    for result in run(seed, seconds=60 * minutes, only=only):
        print(f"{result.target}: {result.inputs:,} inputs", file=sys.stderr, flush=True)
        if result.finding is not None:
            print(f"{result.finding.told}\n{result.finding.input!r}", file=sys.stderr, flush=True)
        results.append(result)
    print_results(results, results_table, as_json=as_json)
    return 1 if any(result.finding for result in results) else 0


def results_table(results: Sequence[Fuzzed]) -> Table:
    """Show one decoder a row, and all together in the last."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("decoder")
    for column in ("inputs", "seconds", "per s", "arcs of seeds", "new arcs", "kept", "MiB"):
        shown.add_column(column, justify="right")
    shown.add_column("found", justify="right")
    for one in (*results, _together(results)):
        shown.add_row(
            one.target,
            f"{one.inputs:,}",
            f"{one.seconds:.1f}",
            f"{one.inputs / one.seconds:,.0f}",
            f"{one.arcs_of_seeds:,}",
            f"{one.arcs - one.arcs_of_seeds:,}",
            f"{one.kept:,}",
            str(one.peak_mib),
            str(int(one.exit_code != 0)),
        )
    return shown


def _together(results: Sequence[Fuzzed]) -> Fuzzed:
    """Add up; decoders share code, so arcs are counted as often as they were reached."""
    return Fuzzed(
        target="all",
        inputs=sum(one.inputs for one in results),
        seconds=sum(one.seconds for one in results) or 1.0,
        arcs_of_seeds=sum(one.arcs_of_seeds for one in results),
        arcs=sum(one.arcs for one in results),
        kept=sum(one.kept for one in results),
        peak_mib=max((one.peak_mib for one in results), default=0),
        exit_code=sum(one.exit_code != 0 for one in results),
        finding=None,
    )
