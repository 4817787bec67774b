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
_NAMES_X, _MARK = _LEFT + _PLOT_WIDTH + 22, 20
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
.lead{stroke-width:1}
.oursname{fill:#0b62d6;font-weight:600}
.back{fill:#fff}
@media (prefers-color-scheme:dark){
text{fill:#d5dae0}.grid{stroke:#343b44}.back{fill:#15191e}.ours{stroke:#5aa2ff}
.oursname{fill:#5aa2ff}}
"""


class Line(msgspec.Struct, frozen=True):
    """A line of a plot and its name.

    `looks` are the same number wherever the same is drawn: 0 for ours.
    """

    name: str
    points: Sequence[tuple[float, float]]
    looks: int


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
    turned = [
        Line(each.name, [(us, share) for share, us in each.points], each.looks) for each in lines
    ]
    return _plot("One call: share that is answered within …", turned, across, up, named_by="median")


def rate_plot(lines: Sequence[Line]) -> str:
    """Draw calls a second over how many are handed over at once."""
    counts = sorted({at_once for line in lines for at_once, _ in line.points})
    rates = [per_s for line in lines for _, per_s in line.points]
    across = Axis(counts[0], counts[-1], [(count, f"{count:g}") for count in counts])
    up = _decades(min(rates), max(rates), lambda per_s: f"{per_s:,.0f}/s")
    return _plot("Calls a second, by how many are handed over at once", lines, across, up)


def items_plot(title: str, lines: Sequence[Line], text: Callable[[float], str]) -> str:
    """Draw us an item over a size, whose ticks are those at which there are points."""
    sizes = sorted({size for line in lines for size, _ in line.points})
    times = [us for line in lines for _, us in line.points]
    across = Axis(sizes[0], sizes[-1], [(size, text(size)) for size in sizes])
    return _plot(title, lines, across, _decades(min(times), max(times), duration_text))


def size_text(kilobytes: float) -> str:
    """Write kilobytes for a tick."""
    return f"{kilobytes / 1000:g} MB" if kilobytes >= 1000 else f"{kilobytes:g} KB"


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
            each.looks,
        )
        for each in lines
    ]
    for line in sorted(placed, key=lambda line: -line.looks):  # ours above all others
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line{_looks(line)} points="{points}"/>')
    parts += _listed(placed) if named_by == "median" else _beside(placed)
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


def _listed(lines: Sequence[Line]) -> list[str]:
    """Name the lines at the right, in the order in which a reader meets their middles."""
    parts = []
    for row, line in enumerate(sorted(lines, key=_middle)):
        x, y = _NAMES_X, _TOP + 8 + row * _ROW
        parts.append(f'<path class="line{_looks(line)} d="M{x} {y:.1f}h{_MARK}"/>')
        parts.append(_name(line, y))
    return parts


def _beside(lines: Sequence[Line]) -> list[str]:
    """Name each line where it ends, or as near to that as the others' names allow."""
    ordered = sorted(lines, key=lambda line: line.points[-1][1])
    heights = _apart([line.points[-1][1] for line in ordered])
    parts = []
    for line, y in zip(ordered, heights, strict=True):
        x, end_y = line.points[-1]
        if line.points[-1][0] >= _LEFT + _PLOT_WIDTH - 0.05:
            way = f"M{x + 3:.1f} {end_y:.1f}L{_NAMES_X + _MARK - 4} {y:.1f}h4"
            parts.append(f'<path class="lead line{_looks(line)} d="{way}"/>')
        else:  # it ends within the plot, where the name would hide others
            parts.append(f'<path class="line{_looks(line)} d="M{_NAMES_X} {y:.1f}h{_MARK}"/>')
        parts.append(_name(line, y))
    return parts


def _apart(heights: Sequence[float]) -> list[float]:
    """Move heights, in their order, as little apart as it takes for names not to touch."""
    moved = list(heights)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + _ROW)
    last: float = _TOP + _PLOT_HEIGHT
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], last)
        last = moved[index] - _ROW
    return moved


def _name(line: Line, y: float) -> str:
    ours = "" if line.looks else ' class="oursname"'
    x = _NAMES_X + _MARK + 7
    return f'<text x="{x}" y="{y + 4:.1f}"{ours}>{escape(line.name)}</text>'


def _middle(line: Line) -> float:
    return line.points[len(line.points) // 2][0]


def _looks(line: Line) -> str:
    """Give the rest of the class attribute of a line, and how it is drawn if it is not ours."""
    if line.looks == 0:
        return ' ours"'
    dashes = ' stroke-dasharray="7 3"' if line.looks % 2 == 0 else ""
    return f'" stroke="{_COLOURS[(line.looks - 1) % len(_COLOURS)]}"{dashes}'
