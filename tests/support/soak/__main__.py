"""The command line of ``scripts/soak``.

    scripts/soak sim [--events N] [--seed N]
    scripts/soak faults [--minutes N] [--seed N] [--only KIND] [--json]
    scripts/soak overload [--seconds N] [--only FACTOR] [--json]
    scripts/soak recycle [--worker-seconds N] [--json]
    scripts/soak powerloss [--states N] [--seed N]
    scripts/soak journal [--kills N] [--seed N]
    scripts/soak durable [--kills N] [--seed N]
    scripts/soak flows [--trials N] [--seed N]
    scripts/soak hostile [--frames N] [--seed N] [--only ATTACK] [--json]
    scripts/soak fuzz [--minutes N] [--seed N] [--only DECODER] [--json]

Reports go to standard output, what goes on meanwhile to standard error. Exit status: 0 all promises
were kept; 1 one was broken, or a figure missed what it must reach; 2 wrong usage.
"""

import argparse
import secrets
import signal
import sys
from random import Random

from . import durable, flows, fuzz, hostile, journals, overload, recycling, sim
from .campaign import FULL_MINUTES, Findings, plan, run
from .faults import EVERYTHING, KINDS
from .report import findings_table, print_results


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="scripts/soak")
    kinds = parser.add_subparsers(dest="soak", required=True)

    simulated = kinds.add_parser("sim", help="the cores on a fake network and clock")
    simulated.add_argument("--events", type=int, default=sim.EVENTS, help="events in all")

    faults = kinds.add_parser("faults", help="real processes that are killed, stopped and hung")
    faults.add_argument(
        "--minutes",
        type=float,
        default=FULL_MINUTES,
        help=f"of everything at once; below {FULL_MINUTES:g} there are fewer faults of each kind "
        "too, in proportion",
    )
    faults.add_argument("--only", choices=[*KINDS, EVERYTHING], help="one kind of faults alone")

    loads = kinds.add_parser("overload", help="more calls than can be served")
    loads.add_argument("--seconds", type=int, default=overload.SECONDS, help="of each load")
    loads.add_argument("--only", choices=list(overload.LOADS), help="one load alone")

    recycled = kinds.add_parser("recycle", help="workers that are replaced again and again")
    recycled.add_argument(
        "--worker-seconds", type=float, default=recycling.WORKER_SECONDS, help="in all"
    )

    power = kinds.add_parser("powerloss", help="what a loss of power would leave of a journal")
    power.add_argument("--states", type=int, default=journals.STATES, help="states to look at")

    killed = kinds.add_parser("journal", help="a journal's writer that is killed under load")
    killed.add_argument("--kills", type=int, default=journals.KILLS, help="how often")

    runs = kinds.add_parser("durable", help="runs, while all that keeps them is killed")
    runs.add_argument("--kills", type=int, default=durable.KILLS, help="how often")

    flown = kinds.add_parser("flows", help="recorded workflows, killed in mid-run")
    flown.add_argument("--trials", type=int, default=flows.TRIALS, help="kills")

    attacked = kinds.add_parser("hostile", help="clients that send what they must not")
    attacked.add_argument("--frames", type=int, default=hostile.FRAMES, help="in all")
    attacks = [attack.name for attack in hostile.ATTACKS]
    attacked.add_argument(
        "--only",
        choices=attacks,
        action="append",
        help="this attack alone, with its share; may be given several times",
    )

    fuzzed = kinds.add_parser("fuzz", help="inputs that reach ever more of what decodes")
    fuzzed.add_argument("--minutes", type=float, default=fuzz.MINUTES, help="in all")
    fuzzed.add_argument(
        "--only", action="append", help="this decoder alone; may be given several times"
    )

    for parser_ in (simulated, faults, power, killed, runs, flown, attacked, fuzzed):
        parser_.add_argument("--seed", type=int, help="of the first run; random unless given")
    for parser_ in (faults, loads, recycled, attacked, fuzzed):
        parser_.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # cleaned up
    if arguments.soak == "overload":
        return overload.soak(arguments.seconds, arguments.only, as_json=arguments.json)
    if arguments.soak == "recycle":
        return recycling.soak(arguments.worker_seconds, as_json=arguments.json)
    seed = secrets.randbelow(10**9) if arguments.seed is None else arguments.seed
    if arguments.soak == "sim":
        return sim.soak_sim(arguments.events, seed)
    if arguments.soak == "powerloss":
        return journals.soak_power(arguments.states, seed)
    if arguments.soak == "hostile":
        return hostile.soak(arguments.frames, seed, arguments.only or (), as_json=arguments.json)
    if arguments.soak == "fuzz":
        return fuzz.soak(arguments.minutes, seed, arguments.only or (), as_json=arguments.json)
    if arguments.soak == "journal":
        return journals.soak_kills(arguments.kills, seed)
    if arguments.soak == "durable":
        return durable.soak_durable(arguments.kills, seed)
    if arguments.soak == "flows":
        return flows.soak_flows(arguments.trials, seed)
    return _soak_faults(arguments.minutes, seed, arguments.only, as_json=arguments.json)


def _soak_faults(minutes: float, seed: int, only: str | None, *, as_json: bool) -> int:
    """Run each kind of faults, then all at once."""
    seeds = Random(seed)
    found: list[Findings] = []
    for kind, faults in [*plan(minutes).items(), (EVERYTHING, sys.maxsize)]:
        of_this = seeds.randrange(10**9) if only is None else seed
        if only not in (None, kind):
            continue
        seconds = minutes * 60 if kind == EVERYTHING else float("inf")
        much = f"{minutes:g} minutes" if kind == EVERYTHING else f"{faults} faults"
        print(f"{kind}: {much}, seed {of_this}", file=sys.stderr, flush=True)
        found.append(run(kind, seed=of_this, faults=faults, seconds=seconds))
        for violation in found[-1].violations:
            print(f"{kind}: {violation}", file=sys.stderr, flush=True)
    broken = [one for one in found if one.violations]
    print_results(found, findings_table, as_json=as_json)
    for one in broken:
        print(
            f"Once more: scripts/soak faults --only {one.kind} --seed {one.seed}", file=sys.stderr
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
