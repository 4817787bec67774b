"""How do others do the same, in the same run?

Each peer takes turns with Pronghorn, both with two workers: ``add(1, 2)`` one after the other, then
8, 64 and 512 of them handed over at once. Each has an environment of its own, is set up as its
manual advises, and is told of with its version. Left out: payloads, failures, other hosts, and all
that a peer does besides; what they promise differs, and is said where it does.

Mirror: tests/bench/scenarios/test_peers.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.table import Table as RichTable

from ..children import ChildError
from ..environment import Environment, collect
from ..figures import Measurement, Spread, percentile, ratio, spread
from ..peers.catalog import PeerInfo
from ..peers.install import environment_of, server_version, version_of
from ..peers.measuring import IN_FLIGHT, rate_at
from ..report import number, p50, p99
from ..rounds import run
from ..subject import Subject
from .options import Options

CALLS = 25
"""Of a slice of a slow peer; `_SHARE` times as many of a quick one."""

_SHARE = 20
_OURS = "Pronghorn"
_FRACTIONS = (0.001, *(step / 100 for step in range(1, 100)), 0.995, 0.999)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two has done.

    Attributes:
        p50_us: Of lone calls, over the rounds.
        p99_us: The same.
        quantiles_us: Of the calls of all rounds: fraction and latency.
        per_s: How many at once -> calls a second.
    """

    p50_us: Spread
    p99_us: Spread
    quantiles_us: tuple[tuple[float, float], ...]
    per_s: dict[int, Spread]


class PeerResult(msgspec.Struct, frozen=True, kw_only=True):
    """One peer and what it was held against.

    Attributes:
        peer: What was measured.
        version: Of the peer.
        server: Of the program that it needs besides, "" if it needs none.
        theirs: What it has done.
        ours: What Pronghorn has done in turn with it.
        slower: Latency of its lone calls in ours, p50, round by round.
        environment: Where that was.
    """

    peer: PeerInfo
    version: str
    server: str
    theirs: Side
    ours: Side
    slower: Spread
    environment: Environment


class Found(msgspec.Struct, frozen=True):
    """What could be measured, and why others could not: name -> reason."""

    results: list[PeerResult]
    absent: dict[str, str]


def measure(
    peers: Sequence[PeerInfo],
    options: Options,
    environments: Path,
    on_result: Callable[[PeerResult], None] = lambda result: None,
) -> Found:
    """Install and measure peers, one after the other; one that can't be had is told."""
    found = Found([], {})
    for peer in peers:
        options.progress(f"{peer.label}: its environment")
        try:
            python = environment_of(peer, environments)
            result = _measure(peer, python, options)
            found.results.append(result)
            on_result(result)
        except ChildError as error:
            options.progress(f"{peer.label} can't be measured: {error}")
            found.absent[peer.name] = str(error)
    return found


def keep(result: PeerResult, folder: Path) -> Path:
    """Write a result into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.peer.name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    return path


def kept(folder: Path) -> list[PeerResult]:
    """Read all results that were kept, the quickest first; those that record what they do last."""
    results = [
        msgspec.json.decode(path.read_bytes(), type=PeerResult)
        for path in sorted(folder.glob("*.json"))
    ]
    return sorted(results, key=lambda each: (each.peer.durable, each.slower.median))


def table(results: Sequence[PeerResult], absent: dict[str, str]) -> RichTable:
    """Show what was measured, for people."""
    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    shown.add_column("add(1, 2)")
    for column in ("version", "p50 us", "p99 us", "ours p50", "x ours", "64 at once /s", "ours"):
        shown.add_column(column, justify="right")
    for each in results:
        rates = [side.per_s.get(64) for side in (each.theirs, each.ours)]
        shown.add_row(
            each.peer.label + (" (recorded)" if each.peer.durable else ""),
            each.version,
            *(number(side.median) for side in (each.theirs.p50_us, each.theirs.p99_us)),
            number(each.ours.p50_us.median),
            number(each.slower.median),
            *("" if rate is None else number(rate.median) for rate in rates),
        )
    for name, reason in absent.items():
        shown.add_row(name, f"not measured: {reason}")
    return shown


def _measure(peer: PeerInfo, python: Path, options: Options) -> PeerResult:
    share = 1 if peer.is_slow else _SHARE
    theirs = Subject(
        name=peer.label,
        factory="peers.measuring:measured",
        options={"peer": peer.module, "at_once": peer.at_once},
        share=share,
        python=str(python),
    )
    ours = Subject(
        name=_OURS,
        factory="peers.measuring:measured",
        options={"peer": "ours:durable" if peer.durable else "ours", "at_once": peer.at_once},
        share=share,
    )
    plan = options.plan(calls=CALLS, slices=1, warm_up=CALLS)
    rounds = run([ours, theirs], plan, options.progress)
    return PeerResult(
        peer=peer,
        version=version_of(peer, python),
        server=server_version(peer),
        theirs=_side(rounds[peer.label]),
        ours=_side(rounds[_OURS]),
        slower=ratio(p50(rounds[peer.label]), p50(rounds[_OURS])),
        environment=collect(),
    )


def _side(rounds: Sequence[Measurement]) -> Side:
    ordered = sorted(sample for one in rounds for sample in one.latencies_ns)
    quantiles = tuple((each, percentile(ordered, each) / 1000) for each in _FRACTIONS)
    per_s = {}
    for size in IN_FLIGHT:
        rates = [one.extra[rate_at(size)] for one in rounds if rate_at(size) in one.extra]
        if rates:
            per_s[size] = spread(rates)
    return Side(
        p50_us=spread(p50(rounds)),
        p99_us=spread(p99(rounds)),
        quantiles_us=quantiles,
        per_s=per_s,
    )
