"""The files of a run."""

from pathlib import Path

import pytest
from load_records import imagined

from pronghorn.bench.load.artifacts import keep
from pronghorn.bench.load.record import read_record

NAMES = {"record.json", "latency.hlog", "intervals.csv", "report.html"}


def test_all_files_are_kept_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    keep(imagined(seed=1), [], folder)
    record = imagined(seed=2)
    assert {path.name for path in keep(record, [], folder)} == NAMES
    assert {path.name for path in folder.iterdir()} == NAMES
    assert read_record((folder / "record.json").read_bytes(), "it") == record


def test_what_cant_be_written_is_an_error_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "latency.hlog").mkdir()  # in the way of the second file
    with pytest.raises(OSError, match=r"latency\.hlog"):
        keep(imagined(), [], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "latency.hlog"}
