"""What commands print: results to standard output, all else to standard error.

Written so that programs can read it. Nothing is wrapped, shortened or coloured unless it goes to a
terminal; text is UTF-8 whatever the locale. An error is one or a few lines for people or, where
``--json`` was given, one line ``{"error": {"code": …, "message": …, …}}``; both on standard error,
so that standard output holds results and nothing else.

Mirror: tests/client/cli/test_output.py.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from pronghorn.broker.wire.errors import BrokerLostError, NodeError, PronghornError
from pronghorn.broker.wire.values import encode_json

from .status import Status, status_of

_OUTCOMES = {
    "not_started": "the node did not run",
    "maybe_executed": "the node may have run",
    "executed": "the node ran",
}
_LEAVE_OPEN = frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "WORKER_LOST", "BROKER_LOST"})

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


@contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Run a command's work: turn what it raises into a message and an exit code.

    Ctrl-C raises `KeyboardInterrupt` in it, so that a call that is open is cancelled.

    Raises:
        SystemExit: The work raised an error that is not a defect of ours, or was interrupted.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except PronghornError as error:
        complain(error, as_json=as_json)
        raise SystemExit(status_of(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(Status.INTERRUPTED) from None
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(Status.BROKEN_PIPE) from None
    except OSError as error:  # the disk is full, the terminal is gone
        complain(PronghornError(f"input or output failed: {error}"), as_json=as_json)
        _drop_output()
        raise SystemExit(Status.FAILED) from None
    finally:
        signal.signal(signal.SIGINT, before)


def complain(error: PronghornError, *, as_json: bool) -> None:
    """Print an error to standard error; its notes say what it is about."""
    if as_json:
        _write_error(encode_json({"error": error_fields(error)}).decode())
        return
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    _write_error(f"{_painted('error:', _RED)} {where}{str(error).rstrip()}{_aftermath(error)}")


def warn(message: str) -> None:
    """Print a warning to standard error."""
    _write_error(f"{_painted('warning:', _YELLOW)} {message}")


def error_fields(error: PronghornError) -> dict[str, Any]:
    """Return what ``--json`` tells of an error: code, message, outcome and what else is known."""
    fields: dict[str, Any] = {
        "code": error.code,
        "message": _printable(error.message).decode(),
        "outcome": error.outcome,
    }
    fields |= msgspec.to_builtins(error.details)
    failures = getattr(error, "failures", ())
    if failures:
        fields["failures"] = [msgspec.to_builtins(failure) for failure in failures]
    return fields


def json_line(value: Any, node: str) -> bytes:
    """Encode a node's result as one line of JSON; bytes become base64.

    Raises:
        NodeError: JSON can't hold it, such as a dict whose keys are tuples.
    """
    try:
        return encode_json(value) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise NodeError(f"{node}: its result can't be written as JSON: {error}") from error


def write(data: bytes | str) -> None:
    """Write to standard output, at once.

    Raises:
        OSError: It can't be written, as when its reader has gone.
    """
    out = sys.stdout.buffer
    out.write(data.encode() if isinstance(data, str) else data)
    out.flush()


def write_result(result: Any, node: str, *, as_json: bool) -> None:
    """Write what a node returned: text as it is, bytes as they are, all else as a line of JSON.

    Raises:
        NodeError: JSON can't hold it.
        OSError: It can't be written.
    """
    if as_json or not isinstance(result, str | bytes):
        write(json_line(result, node))
    elif isinstance(result, str):
        write(result + "\n")
    elif is_terminal(1):
        warn(f"the result has {len(result)} bytes: send them to a file or a pipe, or use --json")
    else:
        write(result)


def write_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows below headings; the first column is never broken, for it is there to be copied."""
    if not is_terminal(1):
        write(aligned([headings, *rows]))
        return
    from rich import box  # only here: it takes as long to import as the rest of the command
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == headings[0])
    for cells in rows:
        table.add_row(*map(Text, cells))
    Console().print(table)


def write_object(fields: Any) -> None:
    """Write something as JSON: in one line, or for people to read on a terminal."""
    encoded = encode_json(fields)
    write((msgspec.json.format(encoded) if is_terminal(1) else encoded) + b"\n")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows in columns, each as wide as its widest cell: nothing is cut or wrapped."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        + "\n"
        for cells in rows
    )


def is_terminal(descriptor: int) -> bool:
    """Whether a person looks at it: standard output is 1, standard error is 2."""
    return os.isatty(descriptor)


def _aftermath(error: PronghornError) -> str:
    """Say whether the node ran, where the error's kind leaves that open."""
    absent = error.code == BrokerLostError.code and error.outcome == "not_started"
    if error.outcome is None or error.code not in _LEAVE_OPEN or absent:
        return ""
    return f" ({_OUTCOMES[error.outcome]})"


def _write_error(text: str) -> None:
    with suppress(OSError):  # nobody is there to be told
        sys.stderr.buffer.write(_printable(text) + b"\n")
        sys.stderr.flush()


def _printable(text: str) -> bytes:
    """Encode text that may hold what was no text on the command line, such as a file's name."""
    return text.encode(errors="backslashreplace")


def _painted(text: str, colour: str) -> str:
    return f"{colour}{text}{_PLAIN}" if is_terminal(2) and "NO_COLOR" not in os.environ else text


def _drop_output() -> None:
    """Keep the flush at the program's end from failing as the last one did."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)
