"""The large values of one run, handed to its nodes by reference.

Encoding a value for each item that is given it would cost its size each time. So what is large and
is given again and again is encoded once: in this process its nodes decode that, or get what was
made of it before, if they can't change it (`referred` has the rules); to the workers goes a
reference to a file. Which values these are is told by their identity, for the context shares them:

- among items that go together what the first and the last have in common, and is `LEAST_BYTES` or
  more: looking costs a chunk as much as it has keys;
- for a task, or an item alone, what is known to be large, and what is `LEAST_ALONE_BYTES` or more;
  if it runs here, from the second time on, for to find out costs as much as to encode it.

A value may lie one level down, in a dict of the input that is made anew for each item. What holds
is that a value does not change as long as it is in a context. An IO shell, for one event loop and
its threads.

Mirror: tests/worker/flow/test_sharing.py.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from secrets import token_bytes
from sys import getrefcount
from typing import Any, Final

from msgspec import Raw

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.limits import KIB
from pronghorn.broker.wire.references import TOKEN_BYTES, Reference
from pronghorn.broker.wire.values import NO_BUFFERS, Buffer, encode_inline

from ..dispatch import Entry
from ..shared import BYTES_MAX, VALUES_MAX, KeptValues, SharedFolder, absent

LEAST_BYTES: Final = 4 * KIB
"""Encoded size from which on a value is handed to several items by reference."""

LEAST_ALONE_BYTES: Final = 64 * KIB
"""The same for a task or one item: what they are given may not be used again."""

_OUR_REFERENCES: Final = 2  # to a value: where it is kept, and of who counts them

_SEEN_MAX: Final = 16
_SMALL_MAX: Final = 256  # values that are known to be small

_TEXTS: Final = (str, bytes)
_CONTAINERS: Final = (list, dict)

Given = dict[str, Any]


class _Large:
    """A large value.

    Attributes:
        value: It; held, so that no other has its id.
        reference: Names it.
        raw: What stands for it.
        content: It, encoded; None where that is in a file.
        in_flight: How many requests refer to it.
        has_file: Whether it is in a file; None if it can't be.
    """

    __slots__ = ("content", "has_file", "in_flight", "raw", "reference", "value")

    def __init__(self, value: Any, content: bytes) -> None:
        self.value = value
        self.reference = Reference(os.getpid(), token_bytes(TOKEN_BYTES), len(content))
        self.raw = Raw(self.reference.encode())
        self.content: bytes | None = content
        self.in_flight = 0
        self.has_file: bool | None = False


Place = tuple[str, str | None, _Large]
"""Where in an input a large value stands: its key, and the key within that dict."""


class _Values(KeptValues):
    """The large values of this process as its own nodes get them: `referred.Values`."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        super().__init__(count_max=count_max, bytes_max=bytes_max)
        self.large: dict[Reference, _Large] = {}
        self.files: SharedFolder | None = None

    def content(self, reference: Reference) -> Buffer:
        """Give a value, encoded.

        Raises:
            InvalidArgumentError: It is not there.
        """
        large = self.large.get(reference)
        content = None if large is None else large.content  # another thread may write it to a file
        if content is not None:
            return content
        try:
            if large is None or self.files is None:
                raise FileNotFoundError("it is not known here")
            return memoryview(self.files.open(reference))
        except OSError as error:
            raise absent(reference, error) from error


class Sharing:
    """The large values of one run, and of the workflows that it calls.

    Attributes:
        values: They, for nodes of this process.

    Args:
        folder: Where they are written for the workers; by default they don't go there.
        count_max: How many are kept beside those in use.
        bytes_max: How many bytes of them, encoded.
    """

    def __init__(
        self,
        folder: SharedFolder | None = None,
        *,
        count_max: int = VALUES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self.values = _Values(count_max=count_max, bytes_max=bytes_max)
        self.values.files = folder
        self._folder = folder  # None from when no more references go to the workers
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()  # guards what follows; nobody waits for it for long
        # id -> value; used last comes last. Those not in use are within the limits.
        self._large: OrderedDict[int, _Large] = OrderedDict()
        self._bytes = 0  # of these
        self._small: dict[int, tuple[Any, int]] = {}  # id -> a value that is small, and its size
        self._seen: dict[int, Any] = {}  # id -> a container that a task here was given once
        self._has_ended = False

    @property
    def is_used(self) -> bool:
        """Whether there are large values, by which further inputs are to be looked at."""
        return bool(self._large)

    def params(self, entry: Entry, given: Given, encoded: bytes = b"") -> Any:
        """Decode the input of a task that runs here.

        Args:
            entry: The node.
            given: The input.
            encoded: It, if it has been encoded already.

        Raises:
            PronghornError: It is refused.
            TypeError, ...: It can't be encoded.
        """
        places = self.known(given, away=False)
        try:
            raw = encoded
            if places or not raw:
                raw = encode_inline(referring(given, places))
            if len(raw) >= LEAST_ALONE_BYTES:
                before, places = places, self.look(given, away=False)
                self.release(before)
                if before or places:
                    raw = encode_inline(referring(given, places))
            if not places:
                return entry.decode(raw)
            return entry.decode_referred(raw, NO_BUFFERS, self.values)
        finally:
            self.release(places)

    def decode(self, entry: Entry, given: Given, places: Sequence[Place]) -> Any:
        """Decode an input that runs here, in which large values stand; errors as in `params`."""
        raw = encode_inline(referring(given, places))
        return entry.decode_referred(raw, NO_BUFFERS, self.values)

    def common(self, first: Given, last: Given, *, away: bool) -> list[Place]:
        """Find large values that several inputs have in common; to be released.

        Args:
            first: One of the inputs.
            last: Another one.
            away: Whether workers are to find them.
        """
        places: list[Place] = []
        for name, value in first.items():
            other = last.get(name)
            if value is other:
                self._place(places, (name, None), value, LEAST_BYTES, away=away)
            elif type(value) is dict and type(other) is dict:
                for inner, each in value.items():
                    if each is other.get(inner):
                        self._place(places, (name, inner), each, LEAST_BYTES, away=away)
        return places

    def known(self, given: Given, *, away: bool) -> list[Place]:
        """Find what is known to be large in an input, and texts that are; to be released."""
        places: list[Place] = []
        large = self._large
        for name, value in given.items():
            if id(value) in large or _is_long(value):
                self._place(places, (name, None), value, LEAST_ALONE_BYTES, away=away)
            elif type(value) is dict and large:
                for inner, each in value.items():
                    if id(each) in large:
                        self._place(places, (name, inner), each, LEAST_ALONE_BYTES, away=away)
        return places

    def look(self, given: Given, *, away: bool) -> list[Place]:
        """Find large values in an input that is large itself; to be released.

        What is in a dict goes before the dict, which may have been made for this input.
        """
        places: list[Place] = []
        for name, value in given.items():
            before = len(places)
            if type(value) is dict:
                for inner, each in value.items():
                    self._place(places, (name, inner), each, LEAST_ALONE_BYTES, away=away)
            if len(places) == before:
                self._place(places, (name, None), value, LEAST_ALONE_BYTES, away=away)
        return places

    def release(self, places: Sequence[Place]) -> None:
        """Let go of values that were in use."""
        for _, _, large in places:
            with self._lock:
                large.in_flight -= 1
        if places:
            self._keep_within()

    def distrust(self) -> None:
        """Send no more references to the workers: one could not follow one."""
        self._folder = None

    def end(self) -> None:
        """Remove all files, and let go of all values."""
        with self._lock:
            self._has_ended = True
            left = list(self._large.values())
            for large in left:
                self._take_out(large)
        for large in left:
            self._forget(large)
        self._small.clear()
        self._seen.clear()

    def _place(
        self,
        places: list[Place],
        where: tuple[str, str | None],
        value: Any,
        least: int,
        *,
        away: bool,
    ) -> None:
        """Add a value to places if it is large; then it is in use."""
        large = self._of(value, least, away=away)
        if large is None:
            return
        if away and not self._has_file(large):
            with self._lock:
                large.in_flight -= 1
            return
        places.append((*where, large))

    def _of(self, value: Any, least: int, *, away: bool) -> _Large | None:
        """Give a value that is large, in use from now on."""
        kind = type(value)
        if kind in _TEXTS:
            if len(value) < least:
                return None
        elif kind in _CONTAINERS:
            if not value:
                return None
        elif kind.__module__ != "numpy" or getattr(value, "nbytes", 0) < least:
            return None
        with self._lock:
            large = self._large.get(id(value))
            if large is not None:
                large.in_flight += 1
                self._large.move_to_end(id(value))
                return large
        small = self._small.get(id(value))
        if small is not None and small[1] < least:
            return None
        is_alone = not away and least == LEAST_ALONE_BYTES and kind in _CONTAINERS
        if is_alone and self._seen.pop(id(value), None) is None:
            self._see(value)
            return None
        return self._measure(value, least)

    def _see(self, value: Any) -> None:
        """Note that a task here was given a value; those that nobody else has are forgotten."""
        for key in list(self._seen):
            if getrefcount(self._seen.get(key)) <= _OUR_REFERENCES:
                self._seen.pop(key, None)
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        if not self._has_ended:
            self._seen[id(value)] = value

    def _measure(self, value: Any, least: int) -> _Large | None:
        try:
            content = encode_inline(value)
        except (TypeError, *DECODE_ERRORS):  # as the whole input will tell
            return None
        if len(content) < least:
            if len(self._small) >= _SMALL_MAX:
                self._small.clear()
            if not self._has_ended:
                self._small[id(value)] = value, len(content)
            return None
        self._drop_left()
        with self._lock:
            if self._has_ended:
                return None
            large = self._large.get(id(value))
            if large is None:  # else another thread has been as quick
                large = _Large(value, content)
                self._large[id(value)] = self.values.large[large.reference] = large
                self._bytes += len(content)
            large.in_flight += 1
        self._keep_within()
        return large

    def _has_file(self, large: _Large) -> bool:
        """Whether a value is in a file, written now if this is the first time."""
        folder = self._folder
        if folder is None or large.has_file is None:
            return False
        if not large.has_file:
            assert large.content is not None
            try:
                folder.write(large.reference, large.content)
            except OSError:  # no room in memory: it is sent as it is
                large.has_file = None
                return False
            large.has_file, large.content = True, None
        return True

    def _keep_within(self) -> None:
        """Drop the values that were used longest ago, as long as there are too many."""
        while len(self._large) > self._count_max or self._bytes > self._bytes_max:
            with self._lock:
                large = next((each for each in self._large.values() if not each.in_flight), None)
                if large is None:
                    return
                self._take_out(large)
            self._forget(large)

    def _drop_left(self) -> None:
        """Drop the values that nobody else has any more, as after a variable was set anew."""
        with self._lock:
            unused = [each for each in self._large.values() if not each.in_flight]
            left = [each for each in unused if getrefcount(each.value) <= _OUR_REFERENCES]
            for large in left:
                self._take_out(large)
        for large in left:
            self._forget(large)

    def _take_out(self, large: _Large) -> None:
        """Have a value not be found any more; the lock is held since it was seen to be unused."""
        del self._large[id(large.value)], self.values.large[large.reference]
        self._bytes -= large.reference.length

    def _forget(self, large: _Large) -> None:
        """Let go of what there is of a value that was taken out."""
        self.values.forget({large.reference})
        if large.has_file and self.values.files is not None:
            self.values.files.remove(large.reference)


def referring(given: Given, places: Sequence[Place]) -> Given:
    """Put references into an input, where it has these very values."""
    made: Given | None = None
    for name, inner, large in places:
        value = given.get(name)
        if inner is None:
            if value is large.value:
                made = dict(given) if made is None else made
                made[name] = large.raw
        elif type(value) is dict and value.get(inner) is large.value:
            made = dict(given) if made is None else made
            made[name] = {**made[name], inner: large.raw}
    return given if made is None else made


def _is_long(value: Any) -> bool:
    return type(value) in _TEXTS and len(value) >= LEAST_ALONE_BYTES
