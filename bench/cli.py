"""The command line: ``python -m pronghorn.bench SCENARIO [--json] [--rounds N] [--quick]``.

Reports go to standard output, what goes on meanwhile to standard error. Exit status: 0 measured;
1 the guard found a figure over its budget, or its proof found a budget that notices nothing; 2
wrong usage; 3 a subject failed.

Mirror: tests/bench/test_cli.py.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from . import guard, readme
from .children import ChildError
from .environment import collect, repository
from .output import (
    as_json,
    keep,
    print_environment,
    print_report,
    stderr_progress,
    stdout_console,
)
from .peers.catalog import BY_NAME, PEERS
from .report import Report
from .rounds import ROUNDS_MIN
from .scenarios import (
    changes,
    claims,
    clients,
    durable,
    faults,
    idle,
    items,
    journal,
    keys,
    links,
    load,
    maps,
    peers,
    recording,
    rtt,
    scale,
    start,
    streams,
    throughput,
    workflow,
)
from .scenarios.options import QUICK_ROUNDS, Options

SCENARIOS: dict[str, Callable[[Options], Report]] = {
    "rtt": rtt.measure,
    "throughput": throughput.measure,
    "map": maps.measure,
    "streams": streams.measure,
    "start": start.measure,
    "idle": idle.measure,
    "scale": scale.measure,
    "links": links.measure,
    "claims": claims.measure,
    "faults": faults.measure,
    "changes": changes.measure,
    "workflow": workflow.measure,
    "items": items.measure,
    "journal": journal.measure,
    "durable": durable.measure,
    "clients": clients.measure,
    "keys": keys.measure,
    "load": load.measure,
    "recording": recording.measure,
}


def main() -> None:
    """Run what the command line asks for."""
    try:
        sys.exit(run(sys.argv[1:]))
    except ChildError as error:  # what went wrong there has been printed by the child
        stderr_progress(f"not measured: {error}")
        sys.exit(3)


def run(arguments: Sequence[str]) -> int:
    """Run and return the exit status."""
    chosen = parser().parse_args(arguments)
    if chosen.scenario == "guard":
        return _guard(as_text=not chosen.json, prove=chosen.prove)
    if chosen.scenario == "readme":
        return _readme()
    if chosen.names and chosen.scenario != "peers":
        parser().error("names are for peers")
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS_MIN)
    options = Options(progress=stderr_progress, rounds=rounds, quick=chosen.quick)
    if chosen.scenario == "peers":
        return _peers(chosen.names, options, keeps=chosen.keep, as_text=not chosen.json)
    names = list(SCENARIOS) if chosen.scenario == "all" else [chosen.scenario]
    environment = collect()
    reports = []
    for name in names:
        report = SCENARIOS[name](options)
        reports.append(report)
        if not chosen.json:
            print_report(report, stdout_console())
        root = repository()
        if (chosen.scenario == "all" or chosen.keep) and root is not None and not chosen.quick:
            stderr_progress(f"kept {keep(report, environment, root / 'bench' / 'results')}")
    if chosen.json:
        print(as_json(reports, environment).decode())
    else:
        print_environment(environment, stdout_console())
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    described = argparse.ArgumentParser(
        prog="bench", description="Measure Pronghorn against its floors, interleaved in one run."
    )
    described.add_argument(
        "scenario",
        choices=[*SCENARIOS, "all", "peers", "guard", "readme"],
        help="what to measure; 'all' also keeps the raw results in bench/results/, from which "
        "'readme' makes the README's tables and plots; 'peers' installs other systems, each in an "
        "environment of its own",
    )
    described.add_argument(
        "names", nargs="*", metavar="PEER", help=f"peers: only these of {', '.join(BY_NAME)}"
    )
    described.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    described.add_argument("--keep", action="store_true", help="keep raw results, as 'all' does")
    described.add_argument("--rounds", type=_positive, help="fresh starts of every subject")
    described.add_argument("--quick", action="store_true", help="less of everything: a trial run")
    described.add_argument(
        "--prove",
        action="store_true",
        help="guard: slow calls down, which must be noticed",
    )
    return described


def _guard(*, as_text: bool, prove: bool) -> int:
    environment = collect()
    report = guard.prove(stderr_progress) if prove else guard.guard(stderr_progress)
    if as_text:
        print_report(report, stdout_console())
        print_environment(environment, stdout_console())
    else:
        print(as_json([report], environment).decode())
    bad = guard.unnoticed(report) if prove else report.missed
    if bad:
        stderr_progress(f"{'NOT NOTICED' if prove else 'OVER BUDGET'}: {', '.join(bad)}")
    elif prove:
        stderr_progress("proven: slow calls break every budget of times of the guard")
    return 1 if bad else 0


def _peers(names: Sequence[str], options: Options, *, keeps: bool, as_text: bool) -> int:
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        parser().error(f"no such peer: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    root = repository() or Path.cwd()
    chosen = [peer for peer in PEERS if not names or peer.name in names]

    def keep_it(result: peers.PeerResult) -> None:
        if keeps and not options.quick:
            stderr_progress(f"kept {peers.keep(result, root / 'bench' / 'results' / 'peers')}")

    found = peers.measure(chosen, options, root / ".venv-peers", keep_it)
    if as_text:
        stdout_console().print(peers.table(found.results, found.absent))
        print_environment(collect(), stdout_console())
    else:
        print(msgspec.json.encode(found).decode())
    return 0


def _readme() -> int:
    root = repository()
    if root is None:
        stderr_progress("there is no repository to write to: run ./scripts/bench readme")
        return 2
    readme.write(root)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
