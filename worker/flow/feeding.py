"""Has a node give the items of a task: as it yields them, as many as are asked for. An IO shell.

A generator in the workers streams, so that it waits at its ``yield`` while nobody asks; one in this
process is asked for a turn's worth at a time. What any other node gives is a list, and all at once.

Mirror: tests/worker/flow/test_feeding.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from time import monotonic
from typing import Any, Final

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError
from pronghorn.broker.wire.messages import Part
from pronghorn.broker.wire.values import decode_value
from pronghorn.client.invocation import Target, result_of
from pronghorn.client.stopwatch import Extras

from ..context import Context
from ..dispatch import Entry
from ..loops import outside_loop
from .calls import failed_by, normalized
from .lending import Lending
from .pooling import WorkerPool, again_delays, is_worth_sending_again
from .sharing import Sharing

GIVE_MAX: Final = 256
"""Values that are given in one go: they are evaluated in one turn."""

_TURN_S: Final = 0.001

Batches = AsyncGenerator[list[Any], None]


class Demand:
    """How many values may be given still."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._more = asyncio.Event()

    def ask(self, count: int) -> None:
        """Let so many more be given."""
        self._count += count
        self._more.set()

    def take(self, count: int) -> None:
        """Note that so many were given."""
        self._count -= count

    async def room(self) -> int:
        """Wait until some may be given, and tell how many in one go."""
        while self._count <= 0:
            self._more.clear()
            await self._more.wait()
        return min(self._count, GIVE_MAX)


async def from_workers(
    pool: WorkerPool,
    entry: Entry,
    given: dict[str, Any] | None,
    demand: Demand,
    sharing: Sharing,
    extras: Extras | None,
) -> Batches:
    """Have a generator run in a worker, which finds the large values of the run.

    Raises:
        PronghornError: It has failed, its worker was lost, or its input can't be encoded.
    """
    with Lending(sharing, [given or {}]) as lending:
        async with aclosing(_arriving(pool, entry, lending, demand, extras)) as batches:
            async for batch in batches:
                yield batch


async def _arriving(
    pool: WorkerPool, entry: Entry, lending: Lending, demand: Demand, extras: Extras | None
) -> Batches:
    delays = again_delays()
    while True:
        arrivals = await pool.stream(entry, lending, extras)
        batch: list[Any] = []
        gave = False
        try:
            while True:
                room = await demand.room()
                arrival = arrivals.take()
                if arrival is None and not batch:
                    await arrivals.wait()
                    continue
                if arrival is not None and isinstance(arrival[0], Part):
                    batch.append(decode_value(arrival[0].value, arrival[1]))
                if batch and (arrival is None or len(batch) >= room):
                    yield batch
                    batch, gave = [], True
                if arrival is not None and not isinstance(arrival[0], Part):
                    if batch:
                        yield batch
                    result_of(Target(entry.name, Any, None), *arrival)
                    return
        except PronghornError as error:
            if not gave and lending.withdraw(failed_by(error).result):
                continue
            if gave or not is_worth_sending_again(error):
                raise
        finally:
            arrivals.close()
        await asyncio.sleep(next(delays))


async def from_here(
    entry: Entry,
    given: dict[str, Any] | None,
    context: Context | None,
    demand: Demand,
    sharing: Sharing,
) -> Batches:
    """Run a generator in this process.

    Raises:
        Exception: What it raises.
    """
    params = sharing.params(entry, given or {})
    extra = () if context is None else (context,)
    if entry.kind == "async":
        values = entry.invoke(params, *extra)
        try:
            async for value in values:
                await demand.room()
                yield [normalized(entry, value)]
        finally:
            await values.aclose()
        return
    steps: Iterator[Any] = outside_loop(lambda: iter(entry.invoke(params, *extra)))
    try:
        while True:
            room = await demand.room()
            if entry.kind == "thread":
                batch, end = await asyncio.to_thread(_take, entry, steps, room)
            else:
                batch, end = outside_loop(_take, entry, steps, room)
            if batch:
                yield batch
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            await asyncio.sleep(0)  # others have their turn
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            outside_loop(close)


def items_of(node: str, result: Any) -> list[Any]:
    """Give the items that a node has given which is no generator.

    Raises:
        InvalidArgumentError: They are no list.
    """
    if not isinstance(result, list):
        raise InvalidArgumentError(f"{node} is to give items: a list, not {type(result).__name__}")
    return result


def _take(entry: Entry, steps: Iterator[Any], room: int) -> tuple[list[Any], Exception | None]:
    """Take values for one turn; tells with what they have ended, if they have."""
    batch: list[Any] = []
    until = monotonic() + _TURN_S
    try:
        while len(batch) < room:
            batch.append(normalized(entry, next(steps)))
            if monotonic() > until:
                break
    except Exception as error:  # it comes behind what was given before it
        return batch, error
    return batch, None
