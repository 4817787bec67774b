"""What the tests of the clients call: served as a file, and imported for calls by function."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from time import sleep
from typing import Any, cast
from uuid import UUID

import msgspec

from pronghorn.worker import Context, node

FILE = str(Path(__file__).resolve())


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Point:
    x: int
    y: int = 0


class Order(msgspec.Struct):
    name: str
    price: Decimal
    placed: datetime


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
async def add_async(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@node(thread=True)
def add_threaded(a: int, b: int) -> int:
    return a + b


@node
def keyword_only(a: int, *, b: int = 10) -> int:
    return a * b


@node
def echo(value: Any) -> Any:
    return value


@node
def divide(a: int, b: int) -> float:
    return a / b


@node
async def divide_async(a: int, b: int) -> float:
    return a / b


@node
def unencodable() -> Any:
    return object()


@node
def untrue() -> int:
    return "seven"  # type: ignore[return-value]


@node
def nothing() -> None:
    """Give nothing."""


@node
def named_like_options(timeout_s: float, params: int) -> float:
    return timeout_s * params


@node
def keyed(key: str, durability: str) -> str:
    return f"{durability} {key}"


@node
def in_context(ctx: Context, a: int, b: int = 2) -> int:
    assert ctx.node.endswith("in_context")
    return a * b


@node
def traceparent(ctx: Context) -> str | None:
    return ctx.traceparent


@node(thread=True)
def traceparent_in_thread(ctx: Context) -> str | None:
    return ctx.traceparent


@node
async def traceparents(ctx: Context) -> list[str | None]:
    """Its own, and those of the calls that it makes."""
    return [ctx.traceparent, await ctx.call(traceparent), await ctx.call(traceparent_in_thread)]


@node
def traceparents_sync(ctx: Context) -> list[str | None]:
    return [ctx.traceparent, ctx.call_sync(traceparent), ctx.call_sync(traceparent_in_thread)]


@node
def time_left(ctx: Context) -> float | None:
    return ctx.time_left()


@node
def paint(colour: Colour) -> Colour:
    return Colour.GREEN if colour is Colour.RED else Colour.RED


@node
def move(point: Point, by: int = 1) -> Point:
    return Point(point.x + by, point.y + by)


@node
def reprice(order: Order, factor: Decimal) -> Order:
    return msgspec.structs.replace(order, price=order.price * factor)


@node
def later(moment: datetime, by: timedelta) -> datetime:
    return moment + by


@node
def same_day(moment: datetime, day: date) -> bool:
    return moment.date() == day


@node
def same(identity: UUID) -> UUID:
    return identity


@node
def evens(numbers: set[int]) -> set[int]:
    return {number for number in numbers if number % 2 == 0}


@node
def pairs(text: str, count: int) -> tuple[tuple[str, int], ...]:
    return tuple((text, index) for index in range(count))


@node
def size(content: bytes) -> int:
    return len(content)


@node
def sizes(contents: Sequence[bytes]) -> list[int]:
    return [len(content) for content in contents]


@node
def count_up(content: memoryview) -> bytes:
    return bytes(byte + 1 for byte in content[:16])


@node
def zeros(count: int) -> bytes:
    return bytes(count)


@node
def nap(seconds: float) -> float:
    sleep(seconds)
    return seconds


@node
async def doze(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@node
def note(fifo: str, text: str) -> str:
    """Write a line, so that a test knows that this has run."""
    _write_line(fifo, text)
    return text


@node
def hold(fifo: str) -> str:
    """Keep a worker busy until somebody writes to that named pipe."""
    with open(fifo) as reader:
        return reader.readline().strip()


@node
async def linger(fifo: str) -> None:
    """Say that it has begun, wait to be cancelled, and say so."""
    _write_line(fifo, "begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _write_line(fifo, "cancelled")
        raise


@node
def thread_name() -> str:
    return threading.current_thread().name


def _write_line(fifo: str, text: str) -> None:
    Path(fifo).write_text(f"{text}\n")


def _note(path: str, word: str) -> None:
    if path:
        with open(path, "a") as file:
            file.write(f"{word}\n")


def _points(count: int, bad: str) -> Iterator[Point]:
    for number in range(count):
        yield Point(number)
    if bad == "raise":
        raise ValueError("in the middle")
    if bad == "part":
        yield cast(Point, object())


@node
def points(ctx: Context, count: int, bad: str = "", path: str = "") -> Iterator[Point]:
    """Yield points; note in a file when it is closed, and what it knew of it."""
    try:
        yield from _points(count, bad)
    finally:
        _note(path, f"closed, cancelled: {ctx.cancelled}")


@node(thread=True)
def points_threaded(ctx: Context, count: int, bad: str = "", path: str = "") -> Iterator[Point]:
    try:
        yield from _points(count, bad)
    finally:
        _note(path, f"closed, cancelled: {ctx.cancelled}")


@node
async def points_async(
    ctx: Context, count: int, bad: str = "", path: str = ""
) -> AsyncIterator[Point]:
    try:
        for point in _points(count, bad):
            await asyncio.sleep(0)
            yield point
    finally:
        _note(path, f"closed, cancelled: {ctx.cancelled}")


@node
def returns_more() -> Generator[int, None, str]:
    yield 1
    return "the end"


@node
def blobs(count: int, size: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


def _tell(ctx: Context, count: int) -> int:
    for number in range(count):
        ctx.progress(number, count, "going")
        ctx.emit("found", {"number": number})
    return count


@node
def tells(ctx: Context, count: int) -> int:
    return _tell(ctx, count)


@node(thread=True)
def tells_threaded(ctx: Context, count: int) -> int:
    return _tell(ctx, count)


@node
async def tells_async(ctx: Context, count: int) -> int:
    return _tell(ctx, count)


@node
async def calls_what_tells(ctx: Context) -> list[int]:
    return [await ctx.call("tells", 2), sum(point["x"] for point in await ctx.call("points", 4))]


@node
def tells_in_between(ctx: Context, count: int) -> Iterator[int]:
    for number in range(count):
        ctx.emit("about to yield", number)
        yield number


@node
def counts(ctx: Context) -> list[int]:
    """Call generators of each kind, which come as lists."""
    return [len(ctx.call_sync(one, 3)) for one in (points, points_threaded, points_async)]


@node(thread=True)
def counts_threaded(ctx: Context) -> list[int]:
    return [len(ctx.call_sync(one, 3)) for one in (points, points_threaded, points_async)]


@node
async def counts_async(ctx: Context) -> list[int]:
    return [len(await ctx.call(one, 3)) for one in (points, points_threaded, points_async)]


@node
def counts_in_parts(ctx: Context) -> Iterator[int]:
    """Call others in the middle of a step."""
    for one in (points, points_threaded, points_async):
        yield len(ctx.call_sync(one, 3))
