"""Nodes that are given large values."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from pronghorn.worker import Context, node


class Row(msgspec.Struct):
    a: int
    b: str


def told(value: Any) -> list[Any]:
    """Tell a value from others, by type and content."""
    kind = type(value).__name__
    if isinstance(value, memoryview):
        value = bytes(value)
    encoded = msgspec.msgpack.encode(value)
    return [kind, len(value), sha256(encoded).hexdigest()]


@node
def as_list(value: list[Any], n: int) -> list[Any]:
    before = told(value)
    value.append(n)
    value[0] = None
    return before


@node
def as_dict(value: dict[str, Any], n: int) -> list[Any]:
    before = told(value["rows"])
    value["rows"].clear()
    return before


@node
def as_any(value, n: int) -> list[Any]:  # type: ignore[no-untyped-def]
    before = told(value)
    if isinstance(value, list):
        value.clear()
    return before


@node
def as_text(value: str, n: int) -> list[Any]:
    return told(value)


@node
def as_bytes(value: bytes, n: int) -> list[Any]:
    return told(value)


@node
def as_view(value: memoryview, n: int) -> list[Any]:
    return told(value)


@node
def as_sequence(value: Sequence[Mapping[str, int | str]], n: int) -> list[Any]:
    return told(value)


@node
def as_rows(value: list[Row], n: int) -> list[Any]:
    before = told(value)
    value[0].a = -1
    return before


@node
def as_number(value: int, n: int) -> int:
    return value


@node
def with_context(ctx: Context, value: list[Any], n: int) -> list[Any]:
    return as_list(value, n)


@node(thread=True)
def in_thread(value: list[Any], n: int) -> list[Any]:
    return as_list(value, n)


@node
async def later(value: list[Any], n: int) -> list[Any]:
    await asyncio.sleep(0)
    return as_list(value, n)


@node
def giving(value: list[Any], n: int) -> Iterator[list[Any]]:
    yield as_list(value, n)


@node
async def giving_later(value: list[Any], n: int) -> AsyncIterator[list[Any]]:
    yield as_list(value, n)


@node
def identity_of(value: Sequence[int], n: int) -> list[int]:
    return [os.getpid(), id(value)]


@node
def files(value: Sequence[int], folder: str, n: int = 0) -> list[str]:
    """Tell what is in a folder."""
    return sorted(os.listdir(folder))


@node
async def hold(value: Sequence[int], flag: str) -> None:
    """Wait for ever, and tell that it has begun."""
    os.close(os.open(flag, os.O_CREAT))
    await asyncio.Event().wait()


@node
def fail(value: Sequence[int]) -> None:
    raise ValueError("no")


@node
def remove(folder: str) -> int:
    """Remove all files of large values."""
    left = [each for each in os.listdir(folder) if "-" in each]
    for each in left:
        os.unlink(f"{folder}/{each}")
    return len(left)


@node
def die_once(value: Sequence[int], n: int, flag: str) -> int:
    """Kill the worker at the first call for 3."""
    if n == 3 and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(value) + n


@node
def make(kind: str) -> Any:
    """Make a large value: some 400 KB."""
    if kind == "numbers":
        return list(range(100_000, 230_000))
    if kind == "rows":
        return [{"a": n, "b": f"row {n}"} for n in range(20_000)]
    if kind == "dict":
        return {"rows": [{"a": n, "b": f"row {n}"} for n in range(20_000)]}
    if kind == "medium":
        return list(range(5_000))
    return "wörd " * 70_000 if kind == "text" else bytes(range(250)) * 1600
