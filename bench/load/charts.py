"""Charts as HTML with inline SVG, readable at any width. Pure.

The drawing is stretched to the room there is, the lines keep their width, and all text is HTML
beside it, so that nothing shrinks with the screen. Colours are the page's variables.

Mirror: tests/bench/load/test_charts.py.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from .histogram import Histogram
from .plan import Plan
from .record import BEYOND_MIN, Interval, Record
from .wording import duration, rate

WIDTH, HEIGHT = 1000.0, 400.0
_COLUMNS_MAX = 120
_ROWS_PER_DECADE = 12
_SHADES = 8
_NINES = ((0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %"))
_NINES_MORE = ((5.0, "99.999 %"), (6.0, "99.9999 %"), (7.0, "99.99999 %"))
_QUARTERED = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # tops of axes with four round steps
_FLOOR_NS = 1_000.0  # below a microsecond nothing that we time is of interest


class Tick(NamedTuple):
    """A label at a part of an axis, 0 to 1."""

    at: float
    text: str


class Series(NamedTuple):
    """A line: its points as parts of both axes, y upwards."""

    name: str
    css_class: str
    points: Sequence[tuple[float, float]]


def percentile_chart(record: Record) -> str:
    """Draw latency and service time by percentile, on a log-of-nines axis.

    The lines end where fewer than ten calls lie beyond.
    """
    found = [("latency", "one", Histogram.decode(record.latency.histogram))]
    if record.is_open:
        found.append(("service time", "two", Histogram.decode(record.service.histogram)))
    count = max(histogram.count for _, _, histogram in found)
    if count < 2 * BEYOND_MIN:
        return _empty("Latency by percentile", "too few calls")
    nines_max = log10(count / BEYOND_MIN)
    scale = _Scale(
        min(_first(histogram) for _, _, histogram in found),
        max(histogram.max_ns for _, _, histogram in found),
    )
    series = [
        Series(name, css_class, _by_nines(histogram, nines_max, scale))
        for name, css_class, histogram in found
    ]
    ticks = [Tick(at / nines_max, text) for at, text in _NINES + _NINES_MORE if at <= nines_max]
    return _figure(
        "Latency by percentile",
        _lines(series),
        x=ticks,
        y=scale.ticks(),
        legend=series,
    )


def heat_map(record: Record) -> str:
    """Draw latency over time: the stronger the colour, the more calls were answered so late."""
    columns = _columns(record.intervals)
    histograms = [histogram for _, _, histogram in columns if histogram.count]
    if not histograms:
        return _empty("Latency over time", "no answers")
    scale = _Scale(min(map(_first, histograms)), max(each.max_ns for each in histograms))
    rows = max(1, round(scale.decades * _ROWS_PER_DECADE))
    cells: dict[tuple[int, int], float] = {}  # column and row -> calls a second
    for column, (_, seconds, histogram) in enumerate(columns):
        for largest_ns, count in histogram.buckets():
            row = min(rows - 1, floor(scale.at(largest_ns) * rows))
            cells[column, row] = cells.get((column, row), 0.0) + count / seconds
    most = max(cells.values())
    shades: list[list[str]] = [[] for _ in range(_SHADES)]
    width, height = WIDTH / len(columns), HEIGHT / rows
    for (column, row), per_s in cells.items():
        # The square root: else a tail of single calls would not be seen beside the many.
        shade = min(_SHADES - 1, floor((per_s / most) ** 0.5 * _SHADES))
        x, y = column * width, HEIGHT - (row + 1) * height
        shades[shade].append(f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z")
    body = "".join(
        f'<path class="heat h{shade}" d="{"".join(paths)}"/>'
        for shade, paths in enumerate(shades)
        if paths
    )
    return _figure(
        "Latency over time",
        body,
        x=_time_ticks(record.plan),
        y=scale.ticks(),
        note=f"stronger colour: more answers; the strongest is {rate(most)}",
    )


def throughput_chart(record: Record) -> str:
    """Draw planned calls, results and errors a second over time."""
    plan = record.plan
    points = [
        (each.at_s, each.seconds, each.answered - sum(each.errors.values()), each.errors)
        for each in record.intervals
        if each.seconds
    ]
    planned = _planned(plan)
    rates = [results / seconds for _, seconds, results, _ in points]
    top = _round_up(max([*rates, *(per_s for _, per_s in planned), 1.0]))

    def stairs(values: Iterable[float]) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        for (at_s, seconds, _, _), value in zip(points, values, strict=True):
            begin, end = at_s / plan.duration_s, (at_s + seconds) / plan.duration_s
            found += [(begin, value / top), (end, value / top)]
        return found

    series = [Series("results", "one", stairs(rates))]
    if planned:
        line = [(at_s / plan.duration_s, per_s / top) for at_s, per_s in planned]
        series.insert(0, Series("planned", "plain", line))
    if record.errors:
        failed = [sum(errors.values()) / seconds for _, seconds, _, errors in points]
        series.append(Series("errors", "bad", stairs(failed)))
    y = [Tick(part / 4, rate(top * part / 4) if part else "0") for part in range(5)]
    return _figure("Throughput", _lines(series), x=_time_ticks(plan), y=y, legend=series)


class _Scale:
    """A logarithmic axis of durations, of whole thirds of decades."""

    def __init__(self, least_ns: float, most_ns: float) -> None:
        self._low = floor(log10(max(least_ns, _FLOOR_NS)) * 3) / 3
        high = ceil(log10(max(most_ns, _FLOOR_NS) * 1.001) * 3) / 3
        self.decades = max(high - self._low, 1 / 3)

    def at(self, ns: float) -> float:
        """Return where a duration is, 0 to 1."""
        return min(1.0, max(0.0, (log10(max(ns, 1.0)) - self._low) / self.decades))

    def ticks(self) -> list[Tick]:
        """Label 1, 2 and 5 of each decade, or 1 alone where there are many."""
        steps = (1, 2, 5) if self.decades <= 2.5 else (1, 3) if self.decades <= 4 else (1,)
        found = []
        for decade in range(floor(self._low), ceil(self._low + self.decades) + 1):
            for step in steps:
                at = (decade + log10(step) - self._low) / self.decades
                if -1e-9 <= at <= 1 + 1e-9:
                    found.append(Tick(at, _short(step * 10.0**decade)))
        return found


def _short(ns: float) -> str:
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= size:
            return f"{ns / size:.0f} {unit}"
    return duration(ns)


def _first(histogram: Histogram) -> float:
    return next((largest for largest, _ in histogram.buckets()), _FLOOR_NS)


def _by_nines(histogram: Histogram, nines_max: float, scale: _Scale) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    reached = 0
    for largest_ns, count in histogram.buckets():
        reached += count
        rest = histogram.count - reached
        nines = log10(histogram.count / rest) if rest else nines_max
        points.append((min(nines, nines_max) / nines_max, scale.at(largest_ns)))
        if nines >= nines_max:
            break
    return [(0.0, points[0][1]), *points] if points else []


def _columns(intervals: Sequence[Interval]) -> list[tuple[float, float, Histogram]]:
    """Put intervals together so that there are not too many; the drain is not among them."""
    timed = [each for each in intervals if each.seconds]
    size = max(1, ceil(len(timed) / _COLUMNS_MAX))
    columns = []
    for begin in range(0, len(timed), size):
        part = timed[begin : begin + size]
        histogram = Histogram()
        for interval in part:
            histogram.add(Histogram.decode(interval.latency))
        columns.append((part[0].at_s, sum(each.seconds for each in part), histogram))
    return columns


def _planned(plan: Plan) -> list[tuple[float, float]]:
    """Return the planned rate over time, from the end of the warm-up."""
    if plan.closed is not None or plan.profile == "replay":
        return []
    points: list[tuple[float, float]] = []
    at_s = 0.0
    for segment in plan.segments()[1 if plan.warmup_s else 0 :]:
        points += [(at_s, segment.rate_from), (at_s + segment.seconds, segment.rate_to)]
        at_s += segment.seconds
    return points


def _time_ticks(plan: Plan) -> list[Tick]:
    step = _round_up(plan.duration_s / 6.5, (1, 2, 5, 10))
    ticks = []
    at_s = 0.0
    while at_s <= plan.duration_s + 1e-9:
        ticks.append(Tick(at_s / plan.duration_s, f"{at_s:g} s"))
        at_s += step
    return ticks


def _round_up(value: float, steps: Sequence[float] = _QUARTERED) -> float:
    """Return the next of some multiples of a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in steps if step * power >= value * 0.9999)


def _lines(series: Sequence[Series]) -> str:
    drawn = []
    for each in series:
        points = " ".join(f"{x * WIDTH:.1f},{HEIGHT - y * HEIGHT:.1f}" for x, y in each.points)
        drawn.append(f'<polyline class="line {each.css_class}" points="{points}"/>')
    return "".join(drawn)


def _figure(
    title: str,
    body: str,
    *,
    x: Sequence[Tick],
    y: Sequence[Tick],
    legend: Sequence[Series] = (),
    note: str = "",
) -> str:
    grid = "".join(
        f'<path class="grid" d="M0 {HEIGHT - tick.at * HEIGHT:.1f}H{WIDTH:g}"/>' for tick in y
    )
    grid += "".join(f'<path class="grid" d="M{tick.at * WIDTH:.1f} 0V{HEIGHT:g}"/>' for tick in x)
    keys = "".join(
        f'<span class="key"><i class="{each.css_class}"></i>{escape(each.name)}</span>'
        for each in legend
    )
    beside = keys or escape(note)
    y_labels = "".join(
        f'<span style="bottom:{tick.at * 100:.2f}%">{escape(tick.text)}</span>' for tick in y
    )
    x_labels = "".join(
        f'<span style="left:{tick.at * 100:.2f}%">{escape(tick.text)}</span>' for tick in x
    )
    return (
        f'<figure><figcaption><b>{escape(title)}</b><span class="keys">{beside}</span></figcaption>'
        f'<div class="frame"><div class="y">{y_labels}</div><div class="plot">'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{grid}{body}</svg></div><div class="x">{x_labels}</div>'
        "</div></figure>"
    )


def _empty(title: str, why: str) -> str:
    return (
        f"<figure><figcaption><b>{escape(title)}</b></figcaption>"
        f'<p class="none">{escape(why)}</p></figure>'
    )
