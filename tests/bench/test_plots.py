"""Mirror of bench/plots.py: what is drawn is well-formed and where it should be."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import pairwise

import pytest

from pronghorn.bench.plots import (
    HEIGHT,
    WIDTH,
    Line,
    duration_text,
    items_plot,
    latency_plot,
    rate_plot,
    size_text,
)

OURS = Line("Pronghorn", [(0.01, 80.0), (0.5, 100.0), (0.99, 200.0)], 0)
SLOW = Line("slow & <odd>", [(0.01, 9_000.0), (0.5, 10_000.0), (0.99, 150_000.0)], 3)
_SVG = "{http://www.w3.org/2000/svg}"


def polylines(drawn: str) -> list[list[tuple[float, float]]]:
    found = []
    for each in ElementTree.fromstring(drawn).iter(f"{_SVG}polyline"):
        points = [point.split(",") for point in each.attrib["points"].split()]
        found.append([(float(x), float(y)) for x, y in points])
    return found


def texts(drawn: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(drawn).iter(f"{_SVG}text")]


@pytest.mark.parametrize(
    "drawn",
    [
        latency_plot([OURS, SLOW]),
        rate_plot([OURS, SLOW]),
        items_plot("items", [OURS, SLOW], size_text),
    ],
)
def test_all_lies_within_the_picture_and_ours_is_drawn_last(drawn: str) -> None:
    slow, ours = polylines(drawn)
    for x, y in (*slow, *ours):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert "slow & <odd>" in texts(drawn)


def test_quicker_is_further_left_by_the_same_for_each_factor() -> None:
    slow, ours = polylines(latency_plot([OURS, SLOW]))
    assert slow[1][0] - ours[1][0] == pytest.approx(2 * (540 / 5), abs=0.2)  # 100 of 5 decades
    assert ours[0][1] > ours[1][1] > ours[2][1]


def test_names_are_in_the_order_of_the_medians() -> None:
    shown = texts(latency_plot([SLOW, OURS]))
    assert shown.index("Pronghorn") < shown.index("slow & <odd>")


def test_names_stand_where_lines_end_but_never_over_each_other() -> None:
    ends = (10_000.0, 9_990.0, 9_980.0, 300.0, 10.0, 10.0)
    lines = [Line(f"n{at}", [(1.0, 10.0), (8.0, end)], at) for at, end in enumerate(ends)]
    drawn = ElementTree.fromstring(rate_plot(lines))
    found = [each for each in drawn.iter(f"{_SVG}text") if (each.text or "").startswith("n")]
    assert [each.text for each in found[:4]] == ["n0", "n1", "n2", "n3"]
    heights = [float(each.attrib["y"]) for each in found]
    assert all(below - above >= 16 for above, below in pairwise(heights))
    assert heights[-1] <= HEIGHT


def test_a_line_looks_the_same_in_each_plot() -> None:
    for drawn in (latency_plot([OURS, SLOW]), rate_plot([SLOW]), rate_plot([OURS, SLOW])):
        assert len(re.findall(r'<polyline class="line" stroke="#e08e45"', drawn)) == 1


@pytest.mark.parametrize("lines", [[OURS], [Line("flat", [(1.0, 10.0), (8.0, 10.0)], 1)]])
def test_one_line_and_a_flat_one_can_be_drawn(lines: Sequence[Line]) -> None:
    assert len(polylines(rate_plot(lines))) == 1


@pytest.mark.parametrize(("us", "text"), [(100, "100 us"), (1_000, "1 ms"), (10_000_000, "10 s")])
def test_ticks_are_read_at_a_glance(us: float, text: str) -> None:
    assert duration_text(us) == text


@pytest.mark.parametrize(("kilobytes", "text"), [(10, "10 KB"), (1_000, "1 MB"), (10_000, "10 MB")])
def test_sizes_are_read_at_a_glance(kilobytes: float, text: str) -> None:
    assert size_text(kilobytes) == text
