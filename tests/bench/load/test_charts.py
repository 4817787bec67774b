"""Charts: where things are drawn."""

import re
from xml.etree import ElementTree

import msgspec
import pytest
from load_records import imagined, record_of, tally_of

from pronghorn.bench.load.charts import heat_map, percentile_chart, throughput_chart
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import Record


def points(chart: str, css_class: str) -> list[tuple[float, float]]:
    found = re.search(rf'class="line {css_class}" points="([^"]*)"', chart)
    assert found
    return [tuple(map(float, pair.split(","))) for pair in found[1].split()]  # type: ignore[misc]


def nothing() -> Record:
    plan = Plan(rate=1, duration_s=1)
    return record_of(tally_of(plan), plan)


@pytest.mark.parametrize("draw", [percentile_chart, heat_map, throughput_chart])
@pytest.mark.parametrize("record", [imagined(), imagined(failing=0.5), nothing()])
def test_charts_are_well_formed_and_within_their_frame(draw, record) -> None:  # type: ignore[no-untyped-def]
    chart = draw(record)
    ElementTree.fromstring(chart)
    for line in re.findall(r'points="([^"]*)"', chart):
        for pair in line.split():
            x, y = map(float, pair.split(","))
            assert -0.1 <= x <= 1000.1
            assert -0.1 <= y <= 400.1
    for at in re.findall(r"(?:left|bottom):([0-9.-]+)%", chart):
        assert -0.01 <= float(at) <= 100.01


def test_nines_are_evenly_spaced_and_end_where_too_few_calls_lie_beyond() -> None:
    chart = percentile_chart(imagined(rate=1000, duration_s=10))  # 10,000 calls: up to 99.9 %
    assert re.findall(r"left:([0-9.]+)%", chart) == ["0.00", "33.33", "66.67", "100.00"]
    line = points(chart, "one")
    assert line[-1][0] == 1000
    assert [y for _, y in line] == sorted((y for _, y in line), reverse=True)


def test_closed_loop_has_one_line() -> None:
    closed = msgspec.structs.replace(imagined(), loop="closed", plan=Plan(closed=8, duration_s=4))
    assert "line two" not in percentile_chart(closed)
    assert "line plain" not in throughput_chart(closed)


def test_planned_rate_of_a_spike_is_drawn() -> None:
    plan = Plan(rate=100, duration_s=10, profile="spike", warmup_s=1)
    line = points(throughput_chart(record_of(tally_of(plan), plan)), "plain")
    assert [x for x, _ in line] == [0, 400, 400, 600, 600, 1000]
    assert line[2][1] < line[1][1]


def test_errors_are_drawn_only_where_there_are_some() -> None:
    assert "line bad" in throughput_chart(imagined(failing=0.1))
    assert "line bad" not in throughput_chart(imagined())
