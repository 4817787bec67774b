"""Where all our processes write what they log: lines on standard error, as it was at the start.

Records of `logging` and what users' code prints come out as the same kind of lines, each with the
ids of its process and of the call that it was written in. A line is written in one go or not at
all: a reader that takes none in holds nobody up for long, and what is missing is counted.

Mirror: tests/broker/wire/test_logs.py.
"""

import fcntl
import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic, time
from typing import Any, Final

from .limits import LOG_LINE_BYTES_MAX
from .logline import LogFormat, LogLevel, LogLine, RunningCall, Throttle, iso_time, written

_STDOUT: Final = 1
_STDERR: Final = 2
_OURS: Final = "pronghorn."
# What is printed on one line, with the ids in front of it; more of it makes more lines.
_PRINTED_MAX: Final = LOG_LINE_BYTES_MAX // 2

_PLAIN = logging.Formatter()  # for tracebacks


class Lines:
    """Writes lines for one process.

    Args:
        process: What kind of process this is.
        format_: How lines are written.
        worker_id: If it is a worker.
        running: Tells the call in which it is asked, if that is one.
        patience_s: Seconds to wait for a reader that takes none in; not again before it does.
    """

    def __init__(
        self,
        process: str,
        format_: LogFormat,
        *,
        worker_id: int | None = None,
        running: Callable[[], RunningCall | None] | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self._process = process
        self._format = format_
        self._worker_id = worker_id
        self._running = running
        self._patience_s = patience_s
        self._throttle = Throttle()
        self._is_read = True  # whether the last line could be written
        # Where the host has closed it, that number is soon something else's.
        self._fd = _STDERR if sys.stderr is not None else -1

    def keep_own_descriptor(self) -> None:
        """Write where standard error goes now, also when users' code closes or redirects it."""
        if self._fd >= 0:
            with suppress(OSError):  # there are none left
                self._fd = fcntl.fcntl(_STDERR, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)

    def become_worker(self, worker_id: int) -> None:
        """Write for a worker from now on."""
        self._process, self._worker_id = "worker", worker_id

    def log(self, record: logging.LogRecord) -> None:
        """Write a record; too many of our own are only counted."""
        if record.name.startswith(_OURS) and not self._throttle.admit(monotonic()):
            return
        exception = record.exc_text
        if exception is None and record.exc_info:
            exception = _PLAIN.formatException(record.exc_info)
        if record.stack_info:
            exception = f"{exception or ''}\n{record.stack_info}".lstrip()
        self._put(
            record.created,
            record.levelname,
            record.name,
            _message_of(record),
            exception,
            self._call() or _call_of(record),
        )

    def printed(self, stream: str, level: LogLevel, text: str) -> None:
        """Write a line that was printed."""
        self._put(time(), level, stream, text, None, self._call())

    def tell_missed(self, now: float) -> None:
        """Say how many lines are missing, if any are and it was not said just now."""
        missed = self._throttle.missed(now)
        if missed:
            self._put_missed(missed)

    def _call(self) -> RunningCall | None:
        return self._running() if self._running is not None else None

    def _put(
        self,
        created: float,
        level: str,
        logger: str,
        message: str,
        exception: str | None,
        call: RunningCall | None,
    ) -> None:
        line = LogLine(
            time=iso_time(created),
            level=level,
            process=self._process,
            pid=os.getpid(),
            worker=self._worker_id,
            node=call and _encodable(call.node),
            request=call and _encodable(call.request),
            traceparent=call and call.traceparent and _encodable(call.traceparent),
            logger=_encodable(logger),
            message=_encodable(message),
            exception=exception and _encodable(exception),
        )
        self.tell_missed(monotonic())
        if not self._write(written(line, self._format)):
            self._throttle.miss()

    def _put_missed(self, count: int) -> None:
        line = LogLine(
            time=iso_time(time()),
            level="WARNING",
            process=self._process,
            pid=os.getpid(),
            worker=self._worker_id,
            logger=__name__,
            message=f"{count} lines are left out: too many at once, or nobody has read them",
        )
        if not self._write(written(line, self._format)):
            self._throttle.miss(count)

    def _write(self, data: bytes) -> bool:
        """Write a line; `False` if nobody takes it in."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        wait_s = self._patience_s if self._is_read else 0.0
        try:
            # A pipe is ready when there is room for `LOG_LINE_BYTES_MAX`, which go in as one.
            self._is_read = bool(poll.poll(wait_s * 1000))
            if self._is_read:
                os.write(self._fd, data)
        except OSError:
            self._is_read = False
        return self._is_read


class LogHandler(logging.Handler):
    """Takes what is logged."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            self._lines.log(record)
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Say what is missing, for there will be nothing more."""
        self._lines.tell_missed(inf)
        super().close()


class _Printed(io.RawIOBase):
    """Takes what is printed, and makes it lines."""

    def __init__(self, lines: Lines, name: str, level: LogLevel, fd: int) -> None:
        super().__init__()
        self._lines = lines
        self._stream = name
        self._level: LogLevel = level
        self._fd = fd
        self.name = f"<{name}>"  # as the real ones have it
        self._begun = threading.local()  # `text`: of a thread, not yet a whole line

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd  # for the processes that users' code starts

    def write(self, data: Any, /) -> int:
        given = bytes(data)
        text = getattr(self._begun, "text", "") + given.decode(errors="backslashreplace")
        *whole, begun = text.split("\n")
        for line in whole:
            self._print(line)
        while len(begun) > _PRINTED_MAX:
            self._print(begun[:_PRINTED_MAX])
            begun = begun[_PRINTED_MAX:]
        self._begun.text = begun
        return len(given)

    def flush(self) -> None:
        text = getattr(self._begun, "text", "")
        if text:
            self._begun.text = ""
            self._print(text)

    def _print(self, text: str) -> None:
        for start in range(0, len(text) or 1, _PRINTED_MAX):
            self._lines.printed(self._stream, self._level, text[start : start + _PRINTED_MAX])


def set_up_logs(
    process: str,
    level: LogLevel,
    format_: LogFormat,
    *,
    worker_id: int | None = None,
    running: Callable[[], RunningCall | None] | None = None,
    patience_s: float = 0.0,
) -> Lines:
    """Have this process log to standard error; arguments as of `Lines`."""
    lines = Lines(process, format_, worker_id=worker_id, running=running, patience_s=patience_s)
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(LogHandler(lines))
    return lines


def capture_prints(lines: Lines) -> None:
    """Make lines of what is printed from now on; each is written when it is whole, or flushed."""
    lines.keep_own_descriptor()
    sys.stdout = _as_text(_Printed(lines, "stdout", "INFO", _STDOUT))
    sys.stderr = _as_text(_Printed(lines, "stderr", "WARNING", _STDERR))


def _as_text(printed: _Printed) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        printed,
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        write_through=True,
    )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # `logging` would write 50 lines about it
        place = f"{record.pathname}:{record.lineno}"
        return f"{record.msg!r} can't be formatted: {type(error).__name__}: {error} ({place})"


def _call_of(record: logging.LogRecord) -> RunningCall | None:
    """Find the call that a record of `Context.log` names, in threads that a node has started."""
    node, request = getattr(record, "node", None), getattr(record, "request_id", None)
    if node is None or request is None:
        return None
    traceparent = getattr(record, "traceparent", None)
    return RunningCall(str(node), str(request), traceparent and str(traceparent))


def _encodable(text: str) -> str:
    """Have what can't be encoded, as half of a surrogate pair, stand there in writing."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
