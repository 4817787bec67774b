"""A record for other tools."""

import csv as reader

from load_records import imagined

from pronghorn.bench.load.exports import csv, hlog
from pronghorn.bench.load.histogram import Histogram


def test_log_has_a_line_for_each_interval() -> None:
    record = imagined()
    lines = hlog(record).splitlines()
    assert lines[1] == "#[Histogram log format version 1.3]"
    rows = [line.split(",") for line in lines[3:]]
    assert len(rows) == len(record.intervals)
    assert [row[0] for row in rows[:3]] == ["0.000", "0.100", "0.200"]
    assert sum(Histogram.decode(row[3]).count for row in rows) == record.latency.count


def test_csv_has_a_row_for_each_interval_and_no_percentile_of_few_calls() -> None:
    record = imagined(failing=0.2)
    rows = list(reader.DictReader(csv(record).splitlines()))
    assert len(rows) == len(record.intervals)
    assert sum(int(row["answered"]) for row in rows) == 4000
    assert sum(int(row["NODE_ERROR"]) for row in rows) == record.counts["errors"]
    assert rows[0]["p50_ms"]
    assert rows[0]["p99_ms"] == ""
