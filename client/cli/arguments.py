"""Params as they are written on a command line. Pure, but for files that they name.

- ``name=value``: the value as JSON if it is JSON, else as text: ``a=1``, ``flag=true``, ``x=null``,
  ``items=[1,2]``, ``who=Ada``; ``who='"1"'`` is the text ``1``.
- ``name=@file``: what the file holds, ``@-`` is standard input: as bytes or as text where the
  parameter is of that type, else as JSON if it is JSON, else as text if it is UTF-8.
- params as a JSON object (by name) or array (by position).

Mirror: tests/client/cli/test_arguments.py.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, Bounds

STANDARD_INPUT = "-"
FILE_MARK = "@"

Params = dict[str, Any] | list[Any]


class FromFile(msgspec.Struct, frozen=True):
    """A value that is in a file."""

    path: str


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)(?:iB|B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` words; a value in a file stays a `FromFile`.

    Raises:
        InvalidArgumentError: A word is none, or two have the same name.
    """
    params: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidArgumentError(
                f"{word!r} is no NAME=VALUE; params by position: --json '[1, 2]'"
            )
        if name in params:
            raise InvalidArgumentError(f"{name} is given twice")
        params[name] = FromFile(text[1:]) if text.startswith(FILE_MARK) else parse_value(text)
    return params


def check_node(name: str) -> str:
    """Return the name of a node as it may be sent.

    Raises:
        InvalidArgumentError: It is not UTF-8.
    """
    if not _is_text(name):
        raise InvalidArgumentError(f"no node can be named {name!r}: it is not UTF-8")
    return name


def parse_value(text: str) -> Any:
    """Return the value that is meant by a text: JSON if it is, else the text itself.

    Raises:
        InvalidArgumentError: It is not UTF-8.
    """
    if not _is_text(text):
        raise InvalidArgumentError(f"{text!r} is not UTF-8")
    try:
        return msgspec.json.decode(text)
    except DECODE_ERRORS:
        return text


def parse_params(source: bytes | str, origin: str) -> Params:
    """Parse params given as JSON; `origin` is what a message calls them.

    Raises:
        InvalidArgumentError: They are not JSON, or neither an object nor an array.
    """
    try:
        params = msgspec.json.decode(source)
    except DECODE_ERRORS as error:
        raise InvalidArgumentError(f"{origin}: {error}") from error
    if not isinstance(params, dict | list):
        raise InvalidArgumentError(
            f"{origin}: params are a JSON object (by name) or array (by position), "
            f"not {msgspec.json.encode(params).decode()[:40]}"
        )
    return params


def check_timeout(seconds: float | None) -> None:
    """Refuse what is no time to wait; `None` is no limit.

    Raises:
        InvalidArgumentError: It is no time.
    """
    if seconds is not None and not 0 < seconds < inf:
        raise InvalidArgumentError(f"--timeout {seconds:g}: expected seconds, more than 0")


def parse_cpus(text: str) -> tuple[int, ...]:
    """Parse ``0,1``.

    Raises:
        InvalidArgumentError: It is something else.
    """
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise InvalidArgumentError(f"--cpus {text!r}: expected numbers of CPUs such as 0,1")
    return tuple(map(int, numbers))


def parse_size(text: str) -> int:
    """Parse a number of bytes, such as ``800M`` or ``1.5G``; K, M and G are powers of 1024.

    Raises:
        InvalidArgumentError: It is something else.
    """
    found = _SIZE.fullmatch(text)
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 1 <= size < 2**63:
        raise InvalidArgumentError(f"{text!r} is no size: expected bytes, or such as 800M or 1.5G")
    return int(size)


def parse_labels(words: Sequence[str]) -> dict[str, int]:
    """Parse labels with the number of workers that have each: ``gpu:1``; ``gpu`` is one.

    Raises:
        InvalidArgumentError: One is something else.
    """
    labels: dict[str, int] = {}
    for word in words:
        label, _, count = word.partition(":")
        if not label or not (count or "1").isdecimal():
            raise InvalidArgumentError(f"{word!r} is no label: expected NAME:COUNT, such as gpu:1")
        labels[label] = int(count or "1")
    return labels


def make_bounds(
    *,
    queue: int | None,
    memory: str | None,
    kill_grace_s: float | None,
    connections: int | None = None,
) -> Bounds:
    """Make the bounds of a broker from what was said of them; all else is as by default.

    Raises:
        InvalidArgumentError: One makes no sense.
    """
    given: dict[str, Any] = {
        "queue_requests": queue,
        "memory_bytes": None if memory is None else parse_size(memory),
        "kill_grace_s": kill_grace_s,
        "connections": connections,
    }
    if given["memory_bytes"] is not None:  # of a small one the queue must leave something
        share = given["memory_bytes"] // 4
        given["queue_bytes"] = min(DEFAULT_BOUNDS.queue_bytes, share)
        given["unread_bytes"] = min(DEFAULT_BOUNDS.unread_bytes, share)
    try:
        return Bounds(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from error


def read_file(path: str) -> bytes:
    """Read a file, or standard input for ``-``.

    Raises:
        InvalidArgumentError: It can't be read.
    """
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.buffer.read()
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"can't read {path}: {error.strerror}") from error


def value_of_file(name: str, content: bytes, schema: Mapping[str, Any]) -> Any:
    """Return the value that a file's content stands for; name and schema are the parameter's.

    Raises:
        InvalidArgumentError: The parameter is text and the content is not UTF-8.
    """
    one_of = schema.get("anyOf", [schema])
    if any(each.get("contentEncoding") == "base64" for each in one_of):
        return content
    if any(each.get("type") == "string" for each in one_of):
        return _text(name, content)
    try:
        return msgspec.json.decode(content)
    except DECODE_ERRORS:
        pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _is_text(word: str) -> bool:
    """Whether a word of the command line is text: its bytes may have been anything."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{name} is text, and its file is not: {error}") from None
