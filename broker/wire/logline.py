"""One line of the log: what it tells, and how it is written, for people or for programs. Pure.

Mirror: tests/broker/wire/test_logline.py.
"""

from datetime import UTC, datetime
from math import inf
from typing import Final, Literal, NamedTuple

import msgspec

from .limits import LOG_LINE_BYTES_MAX, LOG_LINES_BURST, LOG_LINES_PER_S

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["human", "json"]

_LEFT_OUT: Final = " [...] "  # stands for the middle of a text that is too long
# What a terminal would obey, or a reader of lines would take for the end of one.
_CONTROLS: Final = {
    code: f"\\x{code:02x}"
    for code in (*range(32), 127, *range(0x80, 0xA0))
    if chr(code) not in "\t\n"
} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


class RunningCall(NamedTuple):
    """The call of a node that something is logged in."""

    node: str
    request: str
    traceparent: str | None


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a line tells.

    Attributes:
        time: As `iso_time` gives it.
        level: Its name.
        process: What kind of process has logged it.
        pid: Id of that process.
        worker: Number of the worker, if it is one.
        node: The node that was running, if one was.
        request: Names its call within the worker.
        traceparent: Names its run in a W3C trace.
        logger: Name of the logger; ``stdout`` or ``stderr`` for what was printed.
        message: The text.
        exception: A traceback.
    """

    time: str
    level: str
    process: str
    pid: int
    worker: int | None = None
    node: str | None = None
    request: str | None = None
    traceparent: str | None = None
    logger: str
    message: str
    exception: str | None = None


def iso_time(seconds: float) -> str:
    """Write seconds since 1970 as ``2026-11-29T05:50:44.123Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def written(line: LogLine, format_: LogFormat) -> bytes:
    """Write a line, its end included, in at most `LOG_LINE_BYTES_MAX` bytes of UTF-8.

    A text that is too long loses its middle.
    """
    while True:
        data = _as_json(line) if format_ == "json" else _for_people(line)
        if len(data) <= LOG_LINE_BYTES_MAX:
            return data
        line = _shortened(line, LOG_LINE_BYTES_MAX / len(data))


class Throttle:
    """Lets so many lines a second pass, and counts the others."""

    def __init__(self) -> None:
        self._left = float(LOG_LINES_BURST)
        self._at = 0.0  # when `_left` was right
        self._missed = 0  # lines that were not told yet
        self._told_at = -inf

    def admit(self, now: float) -> bool:
        """Whether a line may pass, at that time in monotonic seconds."""
        self._left = min(LOG_LINES_BURST, self._left + (now - self._at) * LOG_LINES_PER_S)
        self._at = now
        if self._left < 1:
            self._missed += 1
            return False
        self._left -= 1
        return True

    def miss(self, count: int = 1) -> None:
        """Count lines that could not be written."""
        self._missed += count

    def missed(self, now: float) -> int:
        """Give the number of lines that are missing, to be told: not more than once a second."""
        if not self._missed or now < self._told_at + 1:
            return 0
        self._told_at = now
        missed, self._missed = self._missed, 0
        return missed


def _as_json(line: LogLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _for_people(line: LogLine) -> bytes:
    """Write what belongs together so that only the first of its lines is not indented."""
    who = line.process if line.worker is None else f"{line.process}-{line.worker}"
    call = "" if line.node is None else f" {line.node}#{line.request}"
    trace = "" if line.traceparent is None else f" ({line.traceparent})"
    text = line.message if line.exception is None else f"{line.message}\n{line.exception}"
    text = text.rstrip("\n").translate(_CONTROLS).replace("\n", "\n  ")
    head = f"{line.time} {line.level} {who}[{line.pid}]{call}{trace} {line.logger}: "
    return f"{head}{text}\n".encode()


def _shortened(line: LogLine, ratio: float) -> LogLine:
    """Cut the longest text of a line, to less than that ratio."""
    texts = {
        name: text
        for name in ("message", "exception", "node", "logger", "request")
        if (text := getattr(line, name)) is not None
    }
    longest = max(texts, key=lambda name: len(texts[name]))
    text = texts[longest]
    half = max(0, int(len(text) * ratio / 2) - 2 * len(_LEFT_OUT))
    cut = text[:half] + _LEFT_OUT + text[len(text) - half :]
    return msgspec.structs.replace(line, **{longest: cut})
