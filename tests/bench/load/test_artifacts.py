"""The files of a run."""

import os
import subprocess
import sys
from pathlib import Path

import load_records
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
    assert {path.name for path in tmp_path.iterdir()} == NAMES
    assert list((tmp_path / "latency.hlog").iterdir()) == []


def test_of_a_full_disk_what_there_is_room_for_is_kept(tmp_path: Path) -> None:
    # A limit of the size of files refuses a write as a full disk does.
    program = """
import resource, signal, sys
from pathlib import Path
from load_records import imagined
from pronghorn.bench.load.artifacts import keep
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    keep(imagined(), [], Path(sys.argv[1]))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(load_records.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "File too large\n"
    assert {path.name for path in tmp_path.iterdir()} == {"intervals.csv"}
