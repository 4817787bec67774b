"""What the conformance kit calls, and the clients in scripts/examples/clients: a module to serve.

``pronghorn conformance --nodes > nodes.py`` writes it to a file.
"""

import asyncio
from collections.abc import Iterator

from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
def count(n: int) -> Iterator[int]:
    """Yield the integers below n."""
    yield from range(n)


@node
def divide(a: int, b: int) -> float:
    """Quotient of two integers."""
    return a / b


@node
def size(x: bytes) -> int:
    """Length of a byte string."""
    return len(x)


@node
def zeros(count: int) -> bytes:
    """So many zero bytes."""
    return bytes(count)


@node
async def wait() -> None:
    """Do nothing until the caller gives up."""
    await asyncio.Event().wait()
