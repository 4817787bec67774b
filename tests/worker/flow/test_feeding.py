"""Nodes that give items in this process; those in the workers: tests/integration/test_workflows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.feeding import GIVE_MAX, Demand, from_here, items_of
from pronghorn.worker.flow.sharing import Sharing

yielded: list[str] = []


def numbers(name: str) -> Iterator[Any]:
    try:
        for number in range(10_000):
            yielded.append(name)
            yield (number, name)
    finally:
        yielded.append(f"{name} is closed")


@node
def plain() -> Iterator[Any]:
    yield from numbers("plain")


@node(thread=True)
def thread() -> Iterator[Any]:
    yield from numbers("thread")


@node
async def later() -> AsyncIterator[Any]:
    for each in numbers("later"):
        yield each


@node
def named(ctx: Context) -> Iterator[str]:
    yield ctx.node


TABLE = DispatchTable.of(
    {f"n.{function.__name__}": function for function in (plain, thread, later, named)}
)


@pytest.mark.parametrize("name", ["plain", "thread", "later"])
async def test_no_more_is_taken_than_is_asked_for(name: str) -> None:
    demand = Demand(3)
    yielded.clear()
    values: list[Any] = []
    has_three = asyncio.Event()
    async with aclosing(from_here(TABLE.lookup(name), None, None, demand, Sharing())) as batches:

        async def take() -> None:
            async for batch in batches:
                demand.take(len(batch))
                values.extend(batch)
                if len(values) == 3:
                    has_three.set()
                if len(values) == 10:
                    return

        taking = asyncio.create_task(take())
        await has_three.wait()
        assert not taking.done()
        demand.ask(7)
        await taking
    assert values == [[number, name] for number in range(10)], "of the types that the wire has"
    assert yielded.count(name) <= 11


async def test_few_are_given_in_one_go_however_many_are_asked_for() -> None:
    demand = Demand(GIVE_MAX * 3)
    async with aclosing(from_here(TABLE.lookup("plain"), None, None, demand, Sharing())) as batches:
        assert 1 <= len(await anext(batches)) <= GIVE_MAX
    assert yielded[-1] == "plain is closed"


async def test_a_generator_gets_its_context() -> None:
    context = Context(request_id="1", node="n.named", worker_id=1, caller=None)
    async with aclosing(
        from_here(TABLE.lookup("named"), {}, context, Demand(1), Sharing())
    ) as batches:
        assert [batch async for batch in batches] == [["n.named"]]


async def test_arguments_that_are_wrong() -> None:
    async with aclosing(
        from_here(TABLE.lookup("plain"), {"a": 1}, None, Demand(1), Sharing())
    ) as batches:
        with pytest.raises(InvalidArgumentError):
            await anext(batches)


def test_what_is_no_list_gives_no_items() -> None:
    assert items_of("n", [1]) == [1]
    with pytest.raises(InvalidArgumentError, match="n is to give items: a list, not dict"):
        items_of("n", {})
