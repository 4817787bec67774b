"""The README's plots, as SVG, made from the kept results and from nothing else. Pure.

Both axes but that of the share are logarithmic: what is compared differs by factors. Colours follow
the reader's preference for light or dark; every line is named beside it, so that nobody has to tell
colours apart.

Mirror: tests/bench/test_plots.py.
"""

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

import msgspec

WIDTH: Final = 860
HEIGHT: Final = 460
_LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 82, 44, 540, 352
_ROW = 16.5  # pixels of a name
_COLOURS: Final = (
    *("#d1495b", "#2a9d8f", "#e08e45", "#7b5ea7", "#4f8f3a", "#b0548f", "#3d7ea6"),
    *("#a8763e", "#6b7a8f", "#c0a030", "#5b8e8e", "#8f4f4f", "#5a6fd0", "#7f8f2f"),
)

_STYLE = """
text{font:12px system-ui,sans-serif;fill:#33383d}
.title{font-size:15px;font-weight:600}
.grid{stroke:#d9dde2;stroke-width:1}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.ours{stroke:#0b62d6;stroke-width:3.2}
.oursname{fill:#0b62d6;font-weight:600}
.back{fill:#fff}
@media (prefers-color-scheme:dark){
text{fill:#d5dae0}.grid{stroke:#343b44}.back{fill:#15191e}.ours{stroke:#5aa2ff}
.oursname{fill:#5aa2ff}}
"""


class Line(msgspec.Struct, frozen=True):
    """A line of a plot and its name; the first of a plot is ours."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(msgspec.Struct, frozen=True):
    """What an axis shows; `ticks` in its unit with their texts."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = True

    def place(self, value: float) -> float:
        """Tell where on the axis a value is, from 0 to 1; beyond them at the end."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = log10(low), log10(high), log10(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


def latency_plot(lines: Sequence[Line]) -> str:
    """Draw which share of calls has ended after which time; points are share and us."""
    times = [us for line in lines for _, us in line.points]
    across = _decades(min(times), max(times), duration_text)
    shares = [(share / 100, f"{share} %") for share in (0, 25, 50, 75, 99)]
    up = Axis(0.0, 1.0, shares, is_log=False)
    turned = [Line(each.name, [(us, share) for share, us in each.points]) for each in lines]
    return _plot("One call: share that is answered within …", turned, across, up, named_by="median")


def rate_plot(lines: Sequence[Line]) -> str:
    """Draw calls a second over how many are handed over at once."""
    counts = sorted({at_once for line in lines for at_once, _ in line.points})
    rates = [per_s for line in lines for _, per_s in line.points]
    across = Axis(counts[0], counts[-1], [(count, f"{count:g}") for count in counts])
    up = _decades(min(rates), max(rates), lambda per_s: f"{per_s:,.0f}/s")
    return _plot("Calls a second, by how many are handed over at once", lines, across, up)


def duration_text(us: float) -> str:
    """Write microseconds for a tick."""
    if us >= 1e6:
        return f"{us / 1e6:g} s"
    return f"{us / 1000:g} ms" if us >= 1000 else f"{us:g} us"


def _decades(low: float, high: float, text: Callable[[float], str]) -> Axis:
    first, last = floor(log10(low)), max(ceil(log10(high)), floor(log10(low)) + 1)
    return Axis(10.0**first, 10.0**last, [(10.0**n, text(10.0**n)) for n in range(first, last + 1)])


def _plot(
    title: str, lines: Sequence[Line], across: Axis, up: Axis, *, named_by: str = "end"
) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
        *_grid(across, up),
    ]
    placed = [
        Line(
            each.name,
            [
                (
                    _LEFT + across.place(x) * _PLOT_WIDTH,
                    _TOP + (1 - up.place(y)) * _PLOT_HEIGHT,
                )
                for x, y in each.points
            ],
        )
        for each in lines
    ]
    for number, line in reversed(list(enumerate(placed))):  # ours above all others
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line{_looks(number)} points="{points}"/>')
    parts += _names(placed, named_by)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(across: Axis, up: Axis) -> list[str]:
    right, bottom = _LEFT + _PLOT_WIDTH, _TOP + _PLOT_HEIGHT
    parts = []
    for value, text in across.ticks:
        x = _LEFT + across.place(value) * _PLOT_WIDTH
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
    for value, text in up.ticks:
        y = _TOP + (1 - up.place(value)) * _PLOT_HEIGHT
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return parts


def _names(lines: Sequence[Line], named_by: str) -> list[str]:
    """Name the lines at the right, in the order in which a reader meets them, by a mark each."""
    if named_by == "median":
        order = sorted(range(len(lines)), key=lambda each: _middle(lines[each]))
    else:
        order = sorted(range(len(lines)), key=lambda each: lines[each].points[-1][1])
    parts = []
    x = _LEFT + _PLOT_WIDTH + 22
    for row, number in enumerate(order):
        y = _TOP + 8 + row * _ROW
        name = escape(lines[number].name)
        ours = ' class="oursname"' if number == 0 else ""
        parts.append(f'<path class="line{_looks(number)} d="M{x} {y:.1f}h20"/>')
        parts.append(f'<text x="{x + 27}" y="{y + 4:.1f}"{ours}>{name}</text>')
    return parts


def _middle(line: Line) -> float:
    return line.points[len(line.points) // 2][0]


def _looks(number: int) -> str:
    """Give the rest of the class attribute of a line, and its colour if that is not ours."""
    if number == 0:
        return ' ours"'
    return f'" stroke="{_COLOURS[(number - 1) % len(_COLOURS)]}"'
