"""``pronghorn map``: lines of JSON in, lines of JSON out. An IO shell.

Mirror: tests/client/cli/test_mapping.py.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError, PronghornError

from ..invocation import timeout_ms_of
from ..keys import key_for
from ..mapping import MapPlan
from ..remote import RemoteTransport
from ..stopwatch import with_options
from .arguments import STANDARD_INPUT
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .lines import Lines
from .output import error_fields, is_terminal, json_line, warn, write
from .status import Status

if TYPE_CHECKING:
    from .progress import Progress


class MapOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to map; see ``pronghorn map --help``."""

    ordered: bool
    keep_going: bool
    timeout_s: float | None
    chunk_size: int | None
    priority: int | None = None
    durability: Literal["none"] | None = None  # else it is not for `map_lines`


def map_lines(node: str, source: str, endpoint: str, options: MapOptions, *, quiet: bool) -> None:
    """Run a node for each line of a file or of standard input and print the results.

    Args:
        node: Its name.
        source: Path of the file, ``-`` for standard input.
        endpoint: Where the broker is.
        options: How to map.
        quiet: Show no progress bar.

    Raises:
        PronghornError: A line is no params, or its node failed, unless to keep going.
        SystemExit: Some failed and it kept going.
    """
    with opened(source) as descriptor:
        check_listening(endpoint)
        transport = RemoteTransport(endpoint, CONNECT_TIMEOUT_S, key_for(endpoint))
        printer = Printer(node, ordered=options.ordered, keep_going=options.keep_going)
        with closing(transport), _bar(descriptor, quiet=quiet) as bar:
            _Mapping(node, transport, options, printer, bar).run(Lines(descriptor))
    printer.finish()


class _Mapping:
    """One run of the command."""

    def __init__(
        self,
        node: str,
        transport: RemoteTransport,
        options: MapOptions,
        printer: "Printer",
        bar: "Progress | None",
    ) -> None:
        self._node = node
        self._transport = transport
        self._extras = with_options(None, priority=options.priority, durability=options.durability)
        self._options = options
        self._printer = printer
        self._bar = bar

    def run(self, lines: Lines) -> None:
        timeout_ms = timeout_ms_of(self._options.timeout_s)
        printer = self._printer
        while lines.wait():
            plan = MapPlan(
                self._node,
                lines.ready(),
                ordered=self._options.ordered,
                chunk_size=self._options.chunk_size,
                result_type=Any,
            )
            with closing(self._transport.map(plan, timeout_ms, self._extras)) as results:
                for values, _ in results:
                    printer.print(values)
                    if self._bar is not None:
                        self._bar.show(printer.done, taken=lines.number, read=lines.bytes_taken)
            bad = lines.take_bad()
            if bad is not None:
                printer.print([bad])


class Printer:
    """Prints results and errors of items as lines of JSON.

    Attributes:
        done: Items whose result or error was printed.
    """

    def __init__(self, node: str, *, ordered: bool, keep_going: bool) -> None:
        self._node = node
        self._ordered = ordered
        self._keep_going = keep_going
        self._failed = 0  # of those that are done
        self.done = 0

    def print(self, values: list[Any]) -> None:
        """Print results as they came, in one write; raises the first error unless to keep going."""
        printed: list[bytes] = []
        try:
            for value in values:
                printed.append(self._line(value))
                self.done += 1
        finally:
            write(b"".join(printed))

    def finish(self) -> None:
        """Tell how many have failed.

        Raises:
            SystemExit: Some have.
        """
        if self._failed:
            warn(f"{self._failed} of {self.done} items failed")
            raise SystemExit(Status.NODE_ERROR)

    def _line(self, value: Any) -> bytes:
        if isinstance(value, PronghornError):
            error = value
        else:
            try:
                return json_line(value, self._node)
            except PronghornError as unprintable:
                error = unprintable
        if isinstance(error, BrokerLostError):
            raise error  # of which every further item would die as well
        error = self._placed(error)
        if not self._keep_going:
            raise error
        self._failed += 1
        return msgspec.json.encode({"error": error_fields(error)}) + b"\n"

    def _placed(self, error: PronghornError) -> PronghornError:
        """Say which item of all it was, as far as that is known, instead of which of its chunk."""
        details = msgspec.structs.replace(error.details, item=self.done if self._ordered else None)
        placed = type(error)(error.message, details)
        if self._ordered:
            placed.add_note(f"item {self.done + 1}")
        return placed


@contextmanager
def opened(source: str) -> Iterator[int]:
    """Open a file, or take standard input for ``-``; gives the descriptor.

    Raises:
        InvalidArgumentError: It can't be read.
    """
    if source == STANDARD_INPUT:
        yield sys.stdin.fileno()
        return
    descriptor = _open(source)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(source: str) -> int:
    path = os.path.expanduser(source)
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(f"can't read {source}: {error.strerror}") from error


def _bar(descriptor: int, *, quiet: bool) -> "AbstractContextManager[Progress | None]":
    """Make the progress bar if there is somebody to see it."""
    # On one terminal the results themselves are the progress, and a bar would tear them.
    if quiet or is_terminal(1) or not is_terminal(2):
        return nullcontext()
    from .progress import Progress  # only here: it takes as long to import as all the rest

    return Progress(_size(descriptor))


def _size(descriptor: int) -> int | None:
    """Return how many bytes there are to be read, if that can be known."""
    status = os.fstat(descriptor)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
