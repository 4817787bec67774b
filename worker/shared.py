"""Large values that are handed over by reference: their files, and what was made of them here.

A run host writes each to a file of its own, below a folder of the tree that only its user may
enter; a worker maps it for as long as it decodes it. What was made of a value is kept within
limits, and forgotten when its file is gone. An IO shell.

Mirror: tests/worker/test_shared.py.
"""

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from typing import Any, Final

from pronghorn.broker.wire.errors import ErrorDetails, InvalidArgumentError
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.references import Reference
from pronghorn.broker.wire.values import Buffer

from .referred import ABSENT

VALUES_MAX: Final = 64
"""Values that a process keeps, of those decoded and of those written."""

BYTES_MAX: Final = 64 * MIB
"""Of these, encoded."""


class SharedFolder:
    """The folder of a tree.

    Args:
        path: It is there already.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, reference: Reference, content: Buffer) -> None:
        """Write a value, whole.

        Raises:
            OSError: It can't be; nothing is left of it.
        """
        path = self._path_of(reference)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def open(self, reference: Reference) -> mmap:
        """Map a value, to be read.

        Raises:
            OSError: It is not there, or can't be had.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path_of(reference), flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError("its file is somebody else's")
            if not 0 < status.st_size == reference.length:
                raise OSError(f"its file has {status.st_size} bytes")
            return mmap(descriptor, reference.length, access=ACCESS_READ)
        finally:
            os.close(descriptor)

    def has(self, reference: Reference) -> bool:
        """Whether the file is there still."""
        return os.path.exists(self._path_of(reference))

    def remove(self, reference: Reference) -> None:
        """Remove the file; who has mapped it keeps that."""
        with suppress(OSError):
            os.unlink(self._path_of(reference))

    def _path_of(self, reference: Reference) -> str:
        return f"{self._path}/{reference.file_name}"


class KeptValues:
    """What was made of values, those used last kept. For all threads."""

    def __init__(self, *, count_max: int = VALUES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        # (reference, form) -> what was made of it; used last comes last
        self._kept: OrderedDict[tuple[Reference, Hashable], Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, reference: Reference, form: Hashable) -> Any:
        """Give what was made of a value in a form, `ABSENT` if nothing was."""
        key = (reference, form)
        with self._lock:
            value = self._kept.get(key, ABSENT)
            if value is not ABSENT:
                self._kept.move_to_end(key)
        return value

    def keep(self, reference: Reference, form: Hashable, value: Any) -> None:
        """Keep what was made of a value, unless it is too large alone."""
        if reference.length > self._bytes_max:
            return
        with self._lock:
            self._kept[reference, form] = value
            size = sum(each.length for each, _ in self._kept)
            while len(self._kept) > self._count_max or size > self._bytes_max:
                size -= self._kept.popitem(last=False)[0][0].length

    def forget(self, gone: set[Reference]) -> None:
        """Let go of what was made of values."""
        with self._lock:
            for key in [key for key in self._kept if key[0] in gone]:
                del self._kept[key]

    def references(self) -> set[Reference]:
        """Give those of which something is kept."""
        with self._lock:
            return {reference for reference, _ in self._kept}


class SharedValues(KeptValues):
    """The values that come to this process by reference: `referred.Values`.

    Args:
        folder: Where they are; by default there are none.
        on_first: Called when something is kept and nothing was, in any thread.
        count_max: How many of them are kept.
        bytes_max: How many bytes.
    """

    def __init__(
        self,
        folder: SharedFolder | None = None,
        *,
        on_first: Callable[[], object] | None = None,
        count_max: int = VALUES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        super().__init__(count_max=count_max, bytes_max=bytes_max)
        self._folder = folder
        self._on_first = on_first

    def content(self, reference: Reference) -> Buffer:
        """Give a value, encoded; its file is open for as long as somebody has that.

        Raises:
            InvalidArgumentError: It is not there; a retryable error.
        """
        try:
            if self._folder is None:
                raise FileNotFoundError("this process takes none")
            return memoryview(self._folder.open(reference))
        except (OSError, ValueError, OverflowError) as error:  # a length that no map may have
            raise absent(reference, error) from error

    def keep(self, reference: Reference, form: Hashable, value: Any) -> None:
        """Keep what was made of a value, for as long as there is room."""
        is_first = not len(self)
        super().keep(reference, form, value)
        if is_first and self._on_first is not None:
            self._on_first()

    def forget_gone(self) -> bool:
        """Let go of what was made of values whose run has ended; whether something is left."""
        if self._folder is not None:
            folder = self._folder
            self.forget({each for each in self.references() if not folder.has(each)})
        return bool(len(self))


def absent(reference: Reference, error: Exception) -> InvalidArgumentError:
    """Make the error of a value that can't be had: its sender may send it as it is."""
    return InvalidArgumentError(
        f"a reference to a value of {reference.length} bytes leads nowhere: {error}",
        ErrorDetails(outcome="not_started", retryable=True),
    )


def is_absent(result: Any) -> bool:
    """Whether the result of a call is that error, as a map of code and details."""
    if not isinstance(result, dict) or result.get("code") != InvalidArgumentError.code:
        return False
    return result.get("outcome") == "not_started" and result.get("retryable") is True
