"""The simulation (tests/support/sim/) of one seed after the other, until there were many events.

A failure is printed, shrunk to the few actions that it needs, and printed again.
"""

import sys
from time import monotonic

from sim.runs import SimulationError, shrink, simulate

EVENTS = 5_000_000
SHRINK_S = 300.0  # after which a failure is taken as it is
EVENTS_PER_SEED = 50_000  # as ``pytest tests/sim --seed N`` has it


def soak_sim(events_max: int, first_seed: int) -> int:
    """Run seeds from that one on until there were so many events; returns an exit status."""
    begun = monotonic()
    events, seed = 0, first_seed
    while events < events_max:
        try:
            events += simulate(seed, min(EVENTS_PER_SEED, events_max)).events
        except SimulationError as failure:
            _report(failure)
            return 1
        seed += 1
        rate = events / (monotonic() - begun)
        _progress(f"{events:,} of {events_max:,} events, {rate:,.0f} events/s, seed {seed - 1}")
    _progress("")
    print(f"{events:,} events of {seed - first_seed} seeds, from {first_seed}: no promise broken")
    return 0


def _report(failure: SimulationError) -> None:
    _progress("")
    print(f"{failure}\nHave it again: scripts/soak sim --seed {failure.seed}\n")
    begun = monotonic()
    least = failure
    for least in shrink(failure):
        _progress(f"shrinking: {len(least.actions)} actions")
        if monotonic() - begun > SHRINK_S:
            break
    _progress("")
    print(f"{len(least.actions)} actions are enough:")
    for action in least.actions:
        print(f"  {action}")
    print(least)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
