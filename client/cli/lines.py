"""Lines of JSON as they come: the items of ``pronghorn map``. An IO shell.

A map takes items ahead of its results, and in one thread it can't do so and hand out results while
it waits for input. So the items end where the input runs dry: the map then brings its results home,
and the next map begins when there is more. A file or a quick producer is never dry and is one map.

Mirror: tests/client/cli/test_lines.py.
"""

import os
import select
from collections import deque
from collections.abc import Iterator

from pronghorn.broker.wire.errors import InvalidArgumentError

from .arguments import Params, parse_params

LINE_BYTES_MAX = 64 * 1024 * 1024
"""A longer line is refused: without a limit, input without line ends would fill the memory."""

_READ_BYTES = 1024 * 1024


class Lines:
    """The items in a file or pipe, one line each; empty lines count as lines and are no items.

    Contract: while `wait` says so, iterate over `ready` to its end, then look at `take_bad`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()  # read, not yet given out
        self._rest: list[bytes] = []  # parts of the line whose end was not read yet
        self._rest_bytes = 0
        self._ended = False
        self._bad: InvalidArgumentError | None = None  # what is wrong with the line given out last
        self.number = 0  # of the line given out last, from 1
        self.bytes_taken = 0  # of the lines given out

    def wait(self) -> bool:
        """Wait until there is a line; `False` at the end of the input."""
        while not self._lines and not self._ended:
            self._read()
        return bool(self._lines)

    def ready(self) -> Iterator[Params]:
        """Give the items that can be had without waiting, up to a line that is none."""
        while self._bad is None and (self._lines or self._read_what_is_there()):
            line = self._lines.popleft()
            self.number += 1
            self.bytes_taken += len(line) + 1
            if line and not line.isspace():
                try:
                    yield parse_params(line, f"line {self.number}")
                except InvalidArgumentError as error:
                    self._bad = error

    def take_bad(self) -> InvalidArgumentError | None:
        """Return what is wrong with the line that ended `ready`, once; `None` if it ran dry."""
        bad, self._bad = self._bad, None
        return bad

    def _read_what_is_there(self) -> bool:
        """Read without waiting; whether there is a line then."""
        while not self._ended and select.select([self._descriptor], [], [], 0)[0]:
            self._read()
            if self._lines:
                return True
        return False

    def _read(self) -> None:
        """Read once, waiting if there is nothing.

        Raises:
            InvalidArgumentError: A line is too long.
        """
        read = os.read(self._descriptor, _READ_BYTES)
        first, *others = read.split(b"\n")
        self._rest.append(first)
        self._rest_bytes += len(first)
        if self._rest_bytes > LINE_BYTES_MAX:
            raise InvalidArgumentError(
                f"line {self.number + len(self._lines) + 1} has more than {LINE_BYTES_MAX} bytes"
            )
        if others:
            self._lines.append(b"".join(self._rest))
            self._lines.extend(others[:-1])
            self._rest = [others[-1]]
            self._rest_bytes = len(others[-1])
        elif not read:
            self._ended = True
            if self._rest_bytes:
                self._lines.append(b"".join(self._rest))
                self._rest.clear()
