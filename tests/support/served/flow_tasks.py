"""Nodes that the tests of workflows serve."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pronghorn.worker import Context, node


@node
def add(a: int, b: int = 1) -> int:
    return a + b


@node
def identity(value: Any) -> Any:
    return value


@node
def spoil(value: list[Any]) -> int:
    value.append("spoilt")
    return len(value)


@node
def kinds() -> dict[str, Any]:
    """Values of every type that the wire knows."""
    return {
        "tuple": (1, (2,)),
        "set": {3},
        "bytes": b"\x00\xff",
        "float": 0.5,
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "large": (1 << 64) - 1,
        "none": None,
    }


@node
def block() -> bytes:
    return bytes(100_000)


@node
def wrong(message: str = "broken") -> None:
    raise ValueError(message)


@node
def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


@node
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@node
async def numbers_later(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@node
def numbers_until(last: int) -> Iterator[int]:
    yield from range(last)
    raise ValueError(f"no more than {last}")


@node
def numbers_counted(file: str) -> Iterator[int]:
    """Give numbers without an end; the file has how many there were."""
    number = 0
    while True:
        Path(file).write_text(str(number + 1))
        yield number
        number += 1


@node
def read_and_fail_at(file: str, n: int, last: int) -> int:
    """Give how many numbers there were."""
    if n == last:
        raise ValueError(f"{n} is the last")
    return int(Path(file).read_text() or 0)


@node
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@node(thread=True)
def in_thread(n: int) -> int:
    return n


@node
def spin(seconds: float) -> int:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return os.getpid()


@node
def process(ctx: Context) -> int:
    return os.getpid()


@node
async def ask(ctx: Context, a: int) -> int:
    result: int = await ctx.call("add", a=a, b=1)
    return result


@node
async def ask_flow(ctx: Context, n: int) -> Any:
    return await ctx.call("doubled", n=n)


@node
def die() -> None:
    os._exit(9)


@node
def ask_flow_sync(ctx: Context, seconds: float) -> Any:
    """Hold up the worker while a workflow runs."""
    return ctx.call_sync("napping", seconds=seconds)


@node
async def ask_flow_beside(ctx: Context, seconds: float) -> Any:
    return await ctx.call("napping", seconds=seconds)


@node
def trace(ctx: Context) -> str | None:
    return ctx.traceparent
