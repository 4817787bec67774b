"""A client in a process of its own that keeps thousands of quick calls queued.

``python -m pronghorn.bench.subjects.crowd ENDPOINT NODE COUNT [DURABILITY]`` says ``ready`` once
each of so many callers has had a first reply, and goes on until it is ended.

Mirror: tests/bench/subjects/test_crowd.py.
"""

import asyncio
import sys

import msgspec
import uvloop

from pronghorn.broker.wire.messages import Durability
from pronghorn.client import AsyncClient

from ..children import die_with_parent, say_ready


async def crowd(endpoint: str, node: str, count: int, durability: Durability = "none") -> None:
    """Have so many callers call without a pause."""
    async with AsyncClient(endpoint) as plain, asyncio.TaskGroup() as group:
        client = plain.within(durability=durability)
        served = asyncio.Barrier(count + 1)
        for _ in range(count):
            group.create_task(_caller(client, node, served))
        await served.wait()
        say_ready()


async def _caller(client: AsyncClient, node: str, served: asyncio.Barrier) -> None:
    await client.call(node)
    await served.wait()
    while True:
        await client.call(node)


def main() -> None:
    """Call until somebody ends this process."""
    die_with_parent()
    endpoint, node, count, *rest = sys.argv[1:]
    durability: Durability = msgspec.convert(rest[0] if rest else "none", Durability)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(crowd(endpoint, node, int(count), durability))


if __name__ == "__main__":
    main()
