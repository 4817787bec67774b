"""What people read of a record."""

import msgspec
import pytest
from load_records import imagined

from pronghorn.bench.load.compare import compare
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import Knee, Trial
from pronghorn.bench.load.wording import (
    count_rows,
    difference_rows,
    duration,
    event_lines,
    headline,
    kind_rows,
    knee_rows,
    load_of,
    percentile_rows,
    rate,
)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1234, "1.23 us"),
        (999_900, "1.00 ms"),
        (45_678_901, "45.7 ms"),
        (-2_500_000, "-2.50 ms"),
        (3e9, "3.00 s"),
        (None, "–"),  # noqa: RUF001
    ],
)
def test_durations(ns: float | None, text: str) -> None:
    assert duration(ns) == text


def test_rates() -> None:
    assert [rate(2000.4), rate(12.34), rate(0.5)] == ["2,000/s", "12.3/s", "0.5/s"]


def test_open_and_closed_loops_are_labelled() -> None:
    record = imagined()
    assert headline(record)[0] == "1,000/s const for 4 s over 1 connection, ipc:///somewhere"
    assert headline(record)[1].startswith("open loop")
    closed = msgspec.structs.replace(record, loop="closed", plan=Plan(closed=8))
    assert headline(closed)[1].startswith("closed loop")
    assert load_of(closed.plan) == "8 outstanding for 10 s over 1 connection"
    assert "offered" not in "".join(headline(closed))
    assert percentile_rows(closed)[0] == ("", "Latency", "Beyond")
    assert "sent more than 1 ms late" not in dict(count_rows(closed))


def test_runs_of_workflows_are_said_to_be_ones() -> None:
    record = imagined()
    assert not any("workflow" in line for line in headline(record))
    kinds = [msgspec.structs.replace(each, node="deploy", workflow=True) for each in record.kinds]
    runs = msgspec.structs.replace(record, kinds=tuple(kinds))
    assert headline(runs)[2].startswith("a call of a workflow is a run of it")
    assert kind_rows(runs)[1][0] == "workflow deploy"


def test_percentiles_have_their_counts() -> None:
    rows = percentile_rows(imagined())
    assert [row[0] for row in rows] == ["", "p50", "p90", "p95", "p97.5", "p99", "max"]
    assert [row[-1] for row in rows] == ["Beyond", "2,000", "400", "200", "100", "40", ""]


def test_same_events_are_told_once() -> None:
    record = msgspec.structs.replace(
        imagined(),
        events=((0.91, "lost"), (0.93, "lost"), (1.7, "back"), (2.1, "lost"), (9, "back")),
    )
    assert event_lines(record) == [
        "at 0.9 s to 2.1 s: lost, 3 times",
        "at 1.7 s to 9.0 s: back, 2 times",
    ]
    record = msgspec.structs.replace(record, events=((0.91, "lost"), (0.93, "lost"), (1.7, "x")))
    assert event_lines(record) == ["at 0.9 s: lost, 2 times", "at 1.7 s: x"]


def test_knee_is_told_with_what_was_tried() -> None:
    trials = (Trial(100, True, 1000, None, ""), Trial(200, False, 9000, None, "too slow"))
    record = msgspec.structs.replace(imagined(), knee=Knee("p99<5ms", 100, trials))
    assert headline(record)[-1] == "knee: p99<5ms holds up to 100/s"
    assert [row[1] for row in knee_rows(record)] == ["Held", "yes", "no"]


def test_differences_are_told_with_their_intervals() -> None:
    rows = difference_rows(compare(imagined(), imagined()))
    assert rows[1][0] == "p50"
    assert " to " in rows[1][3]
    assert rows[1][4] == "no difference"
