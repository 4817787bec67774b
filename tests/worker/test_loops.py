"""Mirror of worker/loops.py."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop

from pronghorn.worker.loops import end_tasks, other_tasks, outside_loop


async def two() -> int:
    await asyncio.sleep(0.001)
    return 2


RUNS: dict[str, Callable[[], int]] = {
    "asyncio": lambda: asyncio.run(two()),
    "uvloop": lambda: uvloop.run(two()),
}


@pytest.mark.parametrize("outer", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("inner", RUNS)
def test_a_loop_runs_within_a_loop(outer: Callable[..., int], inner: str) -> None:
    async def main() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        beside = asyncio.create_task(two())
        found = outside_loop(RUNS[inner])
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        return found + await beside

    assert outer(main()) == 4


def test_where_no_loop_runs_it_is_a_call() -> None:
    assert outside_loop(divmod, 7, 3) == (2, 1)


async def test_no_loop_is_seen_and_the_outer_one_comes_back_after_an_exception() -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    with pytest.raises(RuntimeError, match="no running event loop"):
        outside_loop(asyncio.get_running_loop)
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() is task


async def test_tasks_that_do_not_end_are_told() -> None:
    ended = []

    async def end_well() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("well")

    async def go_on() -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    released = asyncio.Event()
    well, stubborn = asyncio.create_task(end_well()), asyncio.create_task(go_on())
    await asyncio.sleep(0)
    assert other_tasks() == {well, stubborn}
    assert await end_tasks(other_tasks(), 0.01) == {stubborn}
    assert ended == ["well"]
    released.set()
    await stubborn
    assert await end_tasks(other_tasks()) == set()
