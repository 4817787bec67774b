"""A record for other tools: HdrHistogram's interval log, and CSV. Pure.

Mirror: tests/bench/load/test_exports.py.
"""

from .histogram import Histogram
from .record import Record, is_shown

_PERCENTS = (50.0, 90.0, 99.0)
_NS_PER_MS = 1e6


def hlog(record: Record) -> str:
    """Write a log of intervals in HdrHistogram's format 1.3; values are ns, maxima ms.

    The intervals are counted from the end of the warm-up; the last is the drain.
    """
    lines = [
        "#[Logged by pronghorn load]",
        "#[Histogram log format version 1.3]",
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
    ]
    for interval in record.intervals:
        maximum = Histogram.decode(interval.latency).max_ns / _NS_PER_MS
        lines.append(f"{interval.at_s:.3f},{interval.seconds:.3f},{maximum:.3f},{interval.latency}")
    return "\n".join(lines) + "\n"


def csv(record: Record) -> str:
    """Write a row for each interval; percentiles that too few calls lie beyond are empty."""
    codes = sorted(record.errors)
    heading = ["at_s", "seconds", "answered", *(f"p{percent:g}_ms" for percent in _PERCENTS)]
    lines = [",".join([*heading, "max_ms", *codes])]
    for interval in record.intervals:
        histogram = Histogram.decode(interval.latency)
        values = zip(_PERCENTS, histogram.percentiles(_PERCENTS), strict=True)
        cells = [
            f"{value / _NS_PER_MS:.4f}" if is_shown(percent, histogram.count) else ""
            for percent, value in values
        ]
        maximum = f"{histogram.max_ns / _NS_PER_MS:.4f}" if histogram.count else ""
        counts = [str(interval.errors.get(code, 0)) for code in codes]
        row = [f"{interval.at_s:g}", f"{interval.seconds:g}", str(interval.answered)]
        lines.append(",".join([*row, *cells, maximum, *counts]))
    return "\n".join(lines) + "\n"
