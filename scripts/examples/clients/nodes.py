"""What the clients beside this file call: see README.md."""

import asyncio
from collections.abc import Iterator

from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
def count(n: int) -> Iterator[int]:
    """The integers below n, one after the other."""
    yield from range(n)


@node
def divide(a: int, b: int) -> float:
    """Quotient of two integers."""
    return a / b


@node
async def wait() -> None:
    """Do nothing until the caller gives up."""
    await asyncio.Event().wait()
