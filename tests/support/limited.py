"""Nodes with limits, labels and a way to tell in which worker they ran."""

import asyncio
import os
import time
from pathlib import Path

from pronghorn.worker import Context, node

FILE = str(Path(__file__))


@node
def where() -> int:
    return os.getpid()


@node(labels=["gpu"])
def where_gpu() -> int:
    return os.getpid()


@node(labels=["tpu"])
def nowhere() -> int:
    return os.getpid()


@node(max_concurrency=2)
async def two_at_once(log: str, seconds: float) -> None:
    note(log, "+")
    await asyncio.sleep(seconds)
    note(log, "-")


@node(max_concurrency=1)
def one_at_once(log: str, seconds: float) -> None:
    note(log, "+")
    time.sleep(seconds)
    note(log, "-")


@node(rate=50.0)
async def fifty_a_second() -> float:
    return time.monotonic()


@node
def hold(seconds: float) -> None:
    time.sleep(seconds)


@node
def append(log: str, text: str) -> None:
    note(log, text)


@node(max_concurrency=1)
async def itself(ctx: Context, depth: int) -> int:
    return depth if not depth else await ctx.call(itself, depth - 1)


def note(log: str, text: str) -> None:
    """Append to a file that several processes write to."""
    with open(log, "a") as file:
        file.write(text)
