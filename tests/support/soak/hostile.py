"""Hostile clients against a real broker, and others that must not notice.

What is looked at after each attack: that the broker is the same process, that it holds no more
descriptors than before and hardly more memory, that every call of a bystander had its own right
result, and how long those took beside how long they take when nothing else goes on.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from time import monotonic, sleep

import msgspec
from rich.table import Table
from trees import Tree

from pronghorn.bench.children import stop, wait_until_ready
from pronghorn.client import Pool, conformance

from .attacks import ATTACKS, LIMITS, Attack, Pace, Target
from .bystander import Seen
from .recycling import own_folder
from .report import print_results
from .served import environment, held, rss_mib, wait_until

FRAMES = 1_000_000
P99_FACTOR_MAX = 3.0
GROWTH_MIB_MAX = 16.0
QUIET_S = 5.0
SETTLE_S = 10.0  # for what connections held to be given back: handshakes end after three seconds
WARM_UP = 0.01  # so much of each attack before, so that what is taken once has been taken

_NODES = os.path.join(os.path.dirname(conformance.__file__), "nodes.py")


class Result(msgspec.Struct):
    """What one attack has come to.

    Attributes:
        attack: Its name.
        frames: How many frames were sent, or connections made.
        seconds: How long that took.
        malformed: How many of them the broker has counted as malformed.
        seen: What the bystander has seen meanwhile.
        factor: Its p99 against that when nothing goes on.
        rss_mib: Memory of the broker afterwards.
        violations: What must not be, for people.
    """

    attack: str
    frames: int
    seconds: float
    malformed: int
    seen: Seen
    factor: float
    rss_mib: float
    violations: list[str]


class Bystander:
    """The program that calls."""

    def __init__(self, endpoint: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "soak.bystander", endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment({}),
        )
        assert self.process.stdout is not None
        wait_until_ready(self.process.stdout, "the bystander")

    def seen(self) -> Seen:
        """Tell what it has seen since it was asked last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return msgspec.json.decode(self.process.stdout.readline(), type=Seen)


def run(
    frames: int, seed: int, attacks: Sequence[Attack] = ATTACKS, *, quiet_s: float = QUIET_S
) -> Iterator[Result]:
    """Attack one broker in each of those ways, with their shares of so many frames."""
    random = Random(seed)
    with _besieged() as (pool, target, bystander):
        watched = Tree.below(pool._tree.supervisor_pid)
        connections = held(watched.broker)["socket"]
        for attack in attacks:
            attack.run(target, random, _pace(attack, frames * WARM_UP))
        wait_until(lambda: held(watched.broker)["socket"] <= connections, SETTLE_S)
        before = held(watched.broker)
        memory_mib = rss_mib(watched.broker)
        bystander.seen()
        sleep(quiet_s)
        quiet = bystander.seen()
        for attack in attacks:
            pace = _pace(attack, frames)
            count = pace.left
            counted = _malformed(pool)
            bystander.seen()
            begun = monotonic()
            attack.run(target, random, pace)
            seconds = monotonic() - begun
            seen = bystander.seen()
            violations = list(seen.wrong)
            if Tree.below(pool._tree.supervisor_pid) != watched:
                violations.append("a process has ended, and another took its place")
            if more := _settled(watched.broker, before) - before:
                violations.append(f"the broker holds {dict(more)} more than before")
            now_mib = rss_mib(watched.broker)
            if now_mib > memory_mib + GROWTH_MIB_MAX:
                violations.append(
                    f"the broker has grown from {memory_mib:.0f} to {now_mib:.0f} MiB"
                )
            if seen.calls == 0:
                violations.append("the bystander made no calls")
            yield Result(
                attack=attack.name,
                frames=count,
                seconds=seconds,
                malformed=_malformed(pool) - counted,
                seen=seen,
                factor=seen.p99_us / quiet.p99_us,
                rss_mib=now_mib,
                violations=violations,
            )


def soak(frames: int, seed: int, only: Sequence[str], *, as_json: bool) -> int:
    """Make all attacks, or some; returns an exit status."""
    chosen = [attack for attack in ATTACKS if not only or attack.name in only]
    results = []
    for result in run(frames, seed, chosen):
        if result.factor > P99_FACTOR_MAX:
            result.violations.append(f"p99 of others is {result.factor:.1f} times as long")
        print(f"{result.attack}: {result.frames:,} in {result.seconds:.1f} s", file=sys.stderr)
        for violation in result.violations:
            print(f"{result.attack}: {violation}", file=sys.stderr, flush=True)
        results.append(result)
    print_results(results, results_table, as_json=as_json)
    return 1 if any(result.violations for result in results) else 0


def results_table(results: Sequence[Result]) -> Table:
    """Show one attack a row."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("attack")
    columns = ("frames", "seconds", "per s", "malformed", "calls of others", "wrong", "p50 us")
    for column in (*columns, "p99", "max", "p99 x", "broker MiB", "broken"):
        shown.add_column(column, justify="right")
    for one in results:
        shown.add_row(
            one.attack,
            f"{one.frames:,}",
            f"{one.seconds:.1f}",
            f"{one.frames / one.seconds:,.0f}",
            f"{one.malformed:,}",
            f"{one.seen.calls:,}",
            str(len(one.seen.wrong)),
            f"{one.seen.p50_us:,.0f}",
            f"{one.seen.p99_us:,.0f}",
            f"{one.seen.max_us:,.0f}",
            f"{one.factor:.2f}",
            f"{one.rss_mib:.1f}",
            str(len(one.violations)),
        )
    return shown


@contextmanager
def _besieged() -> Iterator[tuple[Pool, Target, Bystander]]:
    with (
        own_folder(),
        Pool(_NODES, workers=2, limits=LIMITS, bind=["tcp://127.0.0.1:0"]) as pool,
    ):
        [tcp] = [one for one in pool.endpoints if one.startswith("tcp://")]
        bystander = Bystander(pool.endpoint)
        try:
            yield pool, Target(pool.endpoint, tcp), bystander
        finally:
            stop(bystander.process)


def _pace(attack: Attack, frames: float) -> Pace:
    return Pace(max(1, round(frames * attack.share)), attack.per_s)


def _settled(pid: int, wanted: Counter[str]) -> Counter[str]:
    """Count what the broker holds, once that is no more than wanted, or time is over."""
    wait_until(lambda: not held(pid) - wanted, SETTLE_S)
    return held(pid)


def _malformed(pool: Pool) -> int:
    with pool.client() as client:
        counters: dict[str, int] = client.call("pronghorn.stats")["counters"]
        return counters["malformed"]
