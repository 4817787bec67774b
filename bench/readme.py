"""The README's table of figures, made from the kept results and from nothing else.

Mirror: tests/bench/test_readme.py.
"""

from pathlib import Path
from typing import Any

import msgspec

BEGIN = "<!-- figures: made by `./scripts/bench readme` from bench/results/ -->"
END = "<!-- end of figures -->"
ORDER = (
    "rtt",
    "throughput",
    "map",
    "streams",
    "start",
    "idle",
    "scale",
    "links",
    "claims",
    "faults",
    "changes",
    "load",
)


def write(root: Path) -> None:
    """Put the table of the kept results into the README of a repository."""
    readme = root / "README.md"
    readme.write_text(updated(readme.read_text(), root / "bench" / "results"))


def updated(text: str, results: Path) -> str:
    """Return a README's text with the table in its place.

    Raises:
        ValueError: It has no place for it.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no lines {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n\n{table(results)}\n{END}{tail}"


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
