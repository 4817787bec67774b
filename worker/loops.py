"""What users' code and the event loop beside it must not do to each other.

Mirror: tests/worker/test_loops.py.
"""

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

GRACE_S = 1.0
"""Seconds that coroutines get to end after they were cancelled, where somebody waits for that."""

P = ParamSpec("P")
T = TypeVar("T")


def outside_loop(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function as in a thread without an event loop, so that it may run one of its own.

    A loop that runs in this thread stands still meanwhile, as it does during any call.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return function(*args, **kwargs)
    task = asyncio.current_task(loop)
    if task is not None:
        _leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        return function(*args, **kwargs)
    finally:
        asyncio._set_running_loop(loop)
        if task is not None:
            _enter_task(loop, task)


def is_cancel(error: BaseException) -> bool:
    """Tell whether our task is being cancelled; else the node has raised it, as any other error."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def other_tasks() -> "set[asyncio.Task[Any]]":
    """List the tasks of the running loop but the one that asks."""
    me = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not me}


async def end_tasks(
    tasks: "Iterable[asyncio.Task[Any]]", timeout_s: float = GRACE_S
) -> "set[asyncio.Task[Any]]":
    """Cancel tasks of this loop and let their ``finally`` blocks run.

    Returns:
        Those that go on all the same when the time is up.
    """
    ending = set(tasks)
    for task in ending:
        task.cancel()
    return (await asyncio.wait(ending, timeout=timeout_s))[1] if ending else set()
