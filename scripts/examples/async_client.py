"""The asynchronous client in one page: python scripts/examples/async_client.py

A program of its own would write ``async with AsyncClient() as client``, which finds the broker
that ``pronghorn serve`` has started.
"""

import asyncio
from pathlib import Path

import uvloop
from tiny import add, concat

from pronghorn.client import AsyncClient, Pool

TINY = str(Path(__file__).with_name("tiny.py"))


async def use(endpoint: str) -> None:
    async with AsyncClient(endpoint) as client:
        print("call:", await client.call("add", a=1, b=2))

        # Calls made in one turn of the loop travel as one message.
        sums = await asyncio.gather(*(client.call(add, number, 1) for number in range(1_000)))
        print("gather:", sum(sums))

        texts = [("a", "b"), ("c", "d"), ("e", "f")]  # by position
        print("map:", [text async for text in client.map(concat, texts)])


def main() -> None:
    with Pool(TINY, workers=2) as pool:
        uvloop.run(use(pool.endpoint))


if __name__ == "__main__":
    main()
