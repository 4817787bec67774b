"""Nodes for the tests of the runtime."""

import asyncio
import sys
import time
from typing import Any

from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable

running = 0
most_running = 0


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
def triple(n: int) -> tuple[int, ...]:
    return (n, n, n)


@node
def unencodable() -> object:
    return object()


@node
def huge() -> int:
    return 1 << 80


@node
def wrong(message: str = "broken") -> None:
    raise ValueError(message)


@node
def leave() -> None:
    sys.exit(3)


@node
async def meet() -> int:
    """Tell how many run side by side."""
    global running, most_running
    running += 1
    most_running = max(most_running, running)
    for _ in range(5):
        await asyncio.sleep(0)
    running -= 1
    return most_running


@node
async def never() -> None:
    await asyncio.Event().wait()


@node
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@node(thread=True)
def in_thread(n: int) -> int:
    time.sleep(0.001)
    return n


@node
def who(ctx: Context) -> str:
    return ctx.node


TABLE = DispatchTable.of(
    {
        f"nodes.{function.__name__}": function
        for function in (
            *(add, identity, spoil, triple, unencodable, huge, wrong, leave, meet, never),
            *(in_thread, who, cancels_itself),
        )
    }
)
