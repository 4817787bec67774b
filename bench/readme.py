"""The README's tables of figures and its plots, made from the kept results and from nothing else.

Mirror: tests/bench/test_readme.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from .peers.catalog import PEERS
from .plots import Line, items_plot, latency_plot, rate_plot, size_text
from .report import RoundFigures
from .scenarios.items import CLIENT, ENGINE, SLOW, points
from .scenarios.peers import PeerResult, Side, kept

BEGIN = "<!-- figures: made by `./scripts/bench readme` from bench/results/ -->"
END = "<!-- end of figures -->"
BEGIN_PEERS = "<!-- peers: made by `./scripts/bench readme` from bench/results/peers/ -->"
END_PEERS = "<!-- end of peers -->"
LATENCY_PLOT, RATE_PLOT = "peers-latency.svg", "peers-at-once.svg"
COUNT_PLOT, CONTEXT_PLOT = "items-by-count.svg", "items-by-context.svg"
ORDER = (
    "rtt",
    "throughput",
    "map",
    "streams",
    "start",
    "idle",
    "scale",
    "links",
    "durable",
    "journal",
    "workflow",
    "claims",
    "faults",
    "changes",
    "items",
    "load",
)


def write(root: Path) -> None:
    """Put the tables of the kept results into the README of a repository, and draw its plots."""
    readme, results = root / "README.md", root / "bench" / "results"
    readme.write_text(updated(readme.read_text(), results))
    for name, drawn in plots(results).items():
        (results / name).write_text(drawn)


def updated(text: str, results: Path) -> str:
    """Return a README's text with the tables in their places.

    Raises:
        ValueError: It has no place for one.
    """
    text = _replaced(text, BEGIN, END, table(results))
    return _replaced(text, BEGIN_PEERS, END_PEERS, peers_table(kept(results / "peers")))


def plots(results: Path) -> dict[str, str]:
    """Draw what can be drawn of the kept results: name of the file -> SVG."""
    return {**_peers_plots(kept(results / "peers")), **_items_plots(results / "items.json")}


def _items_plots(path: Path) -> dict[str, str]:
    """Draw what an item costs, of each way."""
    if not path.exists():
        return {}
    (found,) = msgspec.json.decode(path.read_bytes())["scenarios"]
    raw = msgspec.convert(found["raw"], dict[str, dict[str, list[RoundFigures]]])
    names = {CLIENT: "Pronghorn", ENGINE: "its engine alone", SLOW: "the slow way"}
    drawn = [(name, points(raw, way)) for way, name in names.items()]
    return {
        COUNT_PLOT: items_plot(
            "Time of an item, by how many there are (context of 1 MB)",
            [Line(name, found[0], looks) for looks, (name, found) in enumerate(drawn)],
            lambda count: f"{count:,.0f}",
        ),
        CONTEXT_PLOT: items_plot(
            "Time of an item, by the size of the context",
            [Line(name, found[1], looks) for looks, (name, found) in enumerate(drawn)],
            size_text,
        ),
    }


def _peers_plots(results: Sequence[PeerResult]) -> dict[str, str]:
    """Draw latencies and rates of the peers. Ours is that of the run with the first."""
    quick = [each for each in results if not each.peer.durable]
    if not quick:
        return {}
    ours = quick[0].ours
    looks = {peer.name: number for number, peer in enumerate(PEERS, start=1)}
    latencies = [Line("Pronghorn", ours.quantiles_us, 0)]
    rates = [Line("Pronghorn", _rates(ours), 0)]
    for each in quick:
        number = looks[each.peer.name]
        latencies.append(Line(each.peer.label, each.theirs.quantiles_us, number))
        if each.theirs.per_s:
            rates.append(Line(each.peer.label, _rates(each.theirs), number))
    return {LATENCY_PLOT: latency_plot(latencies), RATE_PLOT: rate_plot(rates)}


def peers_table(results: Sequence[PeerResult]) -> str:
    """Make the table of the peers that were measured, in Markdown."""
    if not results:
        return "No peer has been measured yet.\n"
    lines = [
        "| `add(1, 2)` | version | p50, us | p99, us | ours p50, p99 | p50 / ours (rounds) "
        "| 64 at once, /s | ours | |",
        "| --- " * 9 + "|",
    ]
    for each in results:
        theirs, ours, slower = each.theirs, each.ours, each.slower
        label = each.peer.label + (", against ours with `sync`" if each.peer.durable else "")
        latencies = f"{_number(ours.p50_us.median)}, {_number(ours.p99_us.median)}"
        spread = f"{_number(slower.median)} ({_number(slower.low)}..{_number(slower.high)})"
        rates = [
            _number(side.per_s[64].median) if 64 in side.per_s else "" for side in (theirs, ours)
        ]
        lines.append(
            f"| {label} | {_version(each)} | {_number(theirs.p50_us.median)} "
            f"| {_number(theirs.p99_us.median)} | {latencies} | {spread} "
            f"| {rates[0]} | {rates[1]} | {each.peer.note} |"
        )
    one = results[0].environment
    where = (
        f"{one.cpu}, {one.cores} cores shared by all, {one.python}, Linux {one.kernel}; "
        "`./scripts/bench peers --keep`."
    )
    return "\n".join(lines) + f"\n\n{where}\n"


def _version(result: PeerResult) -> str:
    """Tell the version of a peer, and of the server that it needs: of `Redis server v=7.0.15 …`."""
    found = re.search(r"(\w+) server v=(\S+)", result.server)
    return result.version + (f", {found[1]} {found[2]}" if found else "")


def _rates(side: Side) -> list[tuple[float, float]]:
    return [(float(size), rate.median) for size, rate in sorted(side.per_s.items())]


def _replaced(text: str, begin: str, end: str, content: str) -> str:
    head, begins, rest = text.partition(begin)
    _, ends, tail = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"the README has no lines {begin!r} and {end!r}")
    return f"{head}{begin}\n\n{content}\n{end}{tail}"


def table(results: Path) -> str:
    """Make the table of what was measured, in Markdown."""
    lines = ["| figure | ours | theirs | ratio or value (rounds) | must |", "| --- " * 5 + "|"]
    environments: list[dict[str, Any]] = []
    for name in ORDER:
        path = results / f"{name}.json"
        if path.exists():
            kept = msgspec.json.decode(path.read_bytes())
            environments.append(kept["environment"])
            for scenario in kept["scenarios"]:
                lines += [_line(found) for found in scenario["comparisons"]]
    return "\n".join(lines) + "\n\n" + _where(environments)


def _line(found: dict[str, Any]) -> str:
    value = found["value"]
    unit = found["unit"]
    shown = f"{_number(value['median'])} {unit} ({_number(value['low'])}..{_number(value['high'])})"
    must = found["must"]
    limit = "" if must is None else f"{'≤' if found['at_most'] else '≥'} {_number(must)}"
    ours, theirs = _side(found["ours"]), _side(found["theirs"])
    return f"| {found['figure']} | {ours} | {theirs} | {shown} | {limit} |"


def _side(spread: dict[str, float] | None) -> str:
    return "" if spread is None else _number(spread["median"])


def _number(value: float) -> str:
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def _where(environments: list[dict[str, Any]]) -> str:
    """Say on what the figures were taken."""
    if not environments:
        return "Nothing has been measured yet.\n"
    one = environments[0]
    commits = ", ".join(sorted({each["commit"][:12] for each in environments}))
    packages = one["packages"]
    return (
        "Ours and theirs: us for latencies, per second for rates. "
        f"{one['cpu']}, {one['cores']} cores shared by load and server, {one['python']}, "
        f"pyzmq {packages['pyzmq']}, libzmq {one['libzmq']}, msgspec {packages['msgspec']}, "
        f"uvloop {packages['uvloop']}; the installed wheel of {commits}; `./scripts/bench all`.\n"
    )
