"""``pronghorn call --trace``: the chart, and where it goes."""

import json

import pytest
from commands import Commands

from pronghorn.broker.wire.waterfall import Waterfall
from pronghorn.client.cli.waterfall import chart

WATERFALL = Waterfall(
    asked=0,
    sent=0,
    received=20_000,
    given=20_000,
    begun=50_000,
    ended=50_100,
    replied=80_000,
    answered=100_000,
)


def test_bars_begin_where_the_one_before_ended() -> None:
    assert chart(WATERFALL, 45) == (
        "client queue        0\n"
        "to broker     20.0 us  ████\n"
        "broker queue        0\n"
        "to worker     30.0 us      ██████\n"
        "run            100 ns            █\n"
        "return        49.9 us             ██████████\n"
        "total          100 us\n"
    )


@pytest.mark.parametrize("width", [1, 40, 80, 160])
def test_a_chart_fits_its_width(width: int) -> None:
    longest = max(map(len, chart(WATERFALL, width).splitlines()))
    assert longest <= max(width, 40)


@pytest.mark.slow
def test_the_chart_is_on_standard_error(served: Commands) -> None:
    done = served("call", "--trace", "add", "a=1", "b=2")
    assert (done.status, done.output) == (0, "3\n")
    names = [line[:12].strip() for line in done.errors.splitlines()]
    expected = ["client queue", "to broker", "broker queue", "to worker", "run", "return", "total"]
    assert names == expected


@pytest.mark.slow
def test_a_call_that_fails_has_one_too(served: Commands) -> None:
    done = served("call", "--trace", "divide", "a=0")
    assert done.status == 1
    assert done.errors.startswith("client queue")
    assert "ZeroDivisionError" in done.errors
    assert served("call", "--trace", "no_such").errors.startswith("error:")


@pytest.mark.slow
def test_as_json_it_is_one_line(served: Commands) -> None:
    done = served("call", "--trace", "add", "--json", "[1, 2]")
    assert done.output == "3\n"
    told = json.loads(done.errors)["waterfall_ns"]
    assert told["total"] == sum(ns for name, ns in told.items() if name != "total")
