"""The files of a run: record.json, latency.hlog, intervals.csv, report.html. An IO shell.

Mirror: tests/bench/load/test_artifacts.py.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from .exports import csv, hlog
from .page import page
from .record import Record


def encode_record(record: Record) -> bytes:
    """Encode a record as JSON, one line."""
    return msgspec.json.encode(record) + b"\n"


def keep(record: Record, failed: Sequence[str], folder: Path) -> list[Path]:
    """Write all files of a run, each whole or not at all; returns their paths.

    Raises:
        OSError: The folder can't be made, or a file can't be written: those that can be are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "record.json": encode_record(record),
        "latency.hlog": hlog(record).encode(),
        "intervals.csv": csv(record).encode(),
        "report.html": page(record, failed).encode(),
    }
    kept: list[Path] = []
    failed_with: OSError | None = None
    for name, content in contents.items():
        path = folder / name
        partial = path.with_name(f".{name}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
            kept.append(path)
        except OSError as error:
            failed_with = failed_with or error
        finally:
            partial.unlink(missing_ok=True)
    if failed_with is not None:
        raise failed_with
    return kept
