"""What the tests of the wire call."""

import asyncio
import os
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
def count(n: int) -> Iterator[int]:
    yield from range(n)


@node
def size(x: bytes) -> int:
    return len(x)


@node
def echo(x: Any) -> Any:
    return x


@node
def echo_bytes(x: bytes) -> bytes:
    return x


@node
def echo_types(
    when: datetime,
    day: date,
    clock: time,
    span: timedelta,
    who: UUID,
    price: Decimal,
    tags: set[int],
    ratio: float,
    number: int,
) -> list[Any]:
    return [when, day, clock, span, who, price, tags, ratio, number]


@node
def zeros(count: int) -> bytes:
    return bytes(count)


@node
def divide(a: int, b: int) -> float:
    return a / b


@node
def give_object() -> Any:
    return {"inner": [object()]}


@node
async def wait_for_ever() -> None:
    await asyncio.Event().wait()


@node
def hold(fifo: str) -> str:
    """Keep a worker busy until somebody writes to that named pipe."""
    with open(fifo) as reader:
        return reader.read()


@node
def end_worker(status: int) -> None:
    os._exit(status)
