"""The journal, for longer than tests have: losses of power, and kills."""

import sys
import tempfile
from pathlib import Path
from random import Random
from time import monotonic

from disks import kills, powerloss
from disks.shim import COMPILER, NEEDS_COMPILER

STATES = 500
KILLS = 200
_STATES_PER_WORK = 100  # then the writer works anew
_KILLS_PER_STORE = 50


def soak_power(states: int, first_seed: int) -> int:
    """Look at so many states after a loss of power; returns an exit status."""
    if COMPILER is None:
        print(NEEDS_COMPILER, file=sys.stderr)
        return 2
    seed, seen, begun = first_seed, 0, monotonic()
    while seen < states:
        count = min(_STATES_PER_WORK, states - seen)
        records = Random(seed).choice((200, 600, 2000))
        for wrong in powerloss.campaign(count, seed, records=records):
            print(f"seed {seed}: {wrong}\nHave it again: scripts/soak powerloss --seed {seed}")
            return 1
        seen += count
        seed += 1
        print(f"{seen:,} states, {seen / (monotonic() - begun):.0f}/s", file=sys.stderr)
    print(f"{seen:,} states, seeds from {first_seed}: nothing acknowledged lost, none damaged")
    return 0


def soak_kills(count: int, first_seed: int) -> int:
    """Kill so many writers under load; returns an exit status."""
    seed, done, records, lost = first_seed, 0, 0, 0
    while done < count:
        part = min(_KILLS_PER_STORE, count - done)
        with tempfile.TemporaryDirectory() as folder:
            try:
                killed = kills.campaign(Path(folder) / "journal", part, seed)
            except AssertionError as broken:
                print(f"{broken}\nHave it again: scripts/soak journal --seed {seed}")
                return 1
        done, records, lost = done + part, records + killed.records, lost + killed.lost
        seed += 1
        print(f"{done:,} kills, {records:,} records kept", file=sys.stderr)
    print(
        f"{done:,} kills, seeds from {first_seed}: {records:,} records kept, nothing acknowledged "
        f"lost; {lost:,} of brokers that died too had not been acknowledged"
    )
    return 0
